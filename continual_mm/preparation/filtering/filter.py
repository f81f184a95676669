"""Filters the pairs of a dataset's training items: scorers are trained, pairs scored and kept."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from continual_mm.data.dataset import Dataset, Split
from continual_mm.data.pack import write_pack_rows
from continual_mm.data.registry import card, load, located
from continual_mm.definitions.modality import DatasetCard, Pair
from continual_mm.preparation.filtering.pool import Pool
from continual_mm.preparation.filtering.scorers import (
    AnyScorer,
    CosineScorer,
    HyperbolicScorer,
    ScorerSettings,
    train,
)
from continual_mm.preparation.filtering.selection import By, above, best, kept_count
from continual_mm.preparation.filtering.terms import hype_terms
from continual_mm.preparation.filtering.terms_file import (
    Columns,
    Settings,
    read_terms,
    terms_path,
    write_terms,
)
from continual_mm.system.errors import InputError, suggestion
from continual_mm.system.files import check_target, write_errors
from continual_mm.system.seeds import seed_for

WithoutPair = Literal["keep", "drop"]
USUAL_GENERIC = "text"  # a caption is true of more pictures than one
_CPU = torch.device("cpu")
_FEWEST = 3  # pairs, so that each has two others to be compared with


@dataclass(frozen=True, slots=True, kw_only=True)
class PairFilter:
    """How pairs are scored, and which are kept.

    Attributes:
        pair: The modalities of a pair.
        by: By which score, or how by two of them, see :func:`.selection.best`.
        keep: Share of the pairs that is kept.
        threshold: Instead of a share: the least score that is kept.
        generic: The modality that entails the other; ``text``, if left out and there is one.
        without_pair: What becomes of training items that lack one of the modalities.
        references: Pairs that HYPE compares all others with; all, if there are fewer.
        scorer: Sizes and training of the scorers.
        device: Where they are trained.
    """

    pair: Pair
    by: By = "hype"
    keep: float | None = None
    threshold: float | None = None
    generic: str | None = None
    without_pair: WithoutPair = "keep"
    references: int = 1000
    scorer: ScorerSettings = field(default_factory=ScorerSettings)
    device: torch.device = _CPU

    @property
    def scorers(self) -> int:
        """How many scorers are trained."""
        return 1 if self.by == "cosine" else 2


@dataclass(frozen=True, slots=True)
class Filtered:
    """What became of a dataset."""

    pairs: int  # training items with both modalities
    kept: int  # of these
    without_pair: int  # training items that lack one
    others: int  # validation and test items, which are never filtered
    terms: Path  # where the terms were written


def filter_pairs(
    source: str,
    target: Path,
    how: PairFilter,
    *,
    terms: Path | None = None,
    after_step: Callable[[], None] = lambda: None,
) -> Filtered:
    """Write a dataset without its worst pairs, as a pack if it is one, else as a store.

    Scores and all that they are made of are written beside it, see :func:`.terms_file.terms_path`.

    Args:
        source: A dataset, by name or path.
        target: Where to; it must not be there.
        how: What is kept.
        terms: Of an earlier filter of the same data, used instead of training scorers.
        after_step: Called after each training step of a scorer.

    Raises:
        InputError: If the dataset, the pair, what is to be kept or the target cannot be used.
        FloatingPointError: If a scorer diverges.
    """
    place = f"{source}, pair {how.pair}"
    _check_asked(how, place)
    names = _ordered(how, card(source, splits=("training",)), source)
    path = located(source)
    _check_target(target, path)
    dataset = load(source, standardise=names, splits=("training",))
    pool = Pool.of(dataset, names, how.device)
    if len(pool.rows) < _FEWEST:
        problem = f"{len(pool.rows)} training items have both, too few to compare"
        raise InputError.at(place, problem, f"give at least {_FEWEST}")
    count = 0 if how.keep is None else kept_count(how.keep, len(pool.rows), place)
    data = {"fingerprint": dataset.card.fingerprint, "general": names[0], "other": names[1]}
    if terms is None:
        columns, settings = _scored(pool, how, after_step)
    else:
        wanted = ("cosine",) if how.by == "cosine" else _hype_columns(names)
        columns, settings = read_terms(terms, wanted, len(pool.rows), data)
    kept = _kept(how, columns, count, place)
    rows = _rows(pool, kept, how)
    _check_left(dataset, rows, place)
    asked = {"by": how.by, "keep": how.keep, "threshold": how.threshold}
    audit = {"ids": pool.ids, "row": pool.rows, **columns, "kept": kept}
    found = terms_path(target)
    write_terms(found, audit, {**settings, **data, **asked, "without_pair": how.without_pair})
    _write(path, target, rows, f"{place}: {int(kept.sum())} of {len(kept)} kept by {how.by}")
    training = int((dataset.split == Split.TRAIN).sum())
    others = len(dataset) - training
    return Filtered(len(kept), int(kept.sum()), training - len(kept), others, found)


def _check_asked(how: PairFilter, place: str) -> None:
    if (how.keep is None) == (how.threshold is None):
        remedy = "give a share to keep, or a threshold"
        raise InputError.at(place, "it is not clear what to keep", remedy)
    if how.threshold is not None and how.by not in ("hype", "cosine"):
        problem = f"{how.by!r} goes by places, which have no threshold"
        raise InputError.at(place, problem, "give a share to keep")


def _ordered(how: PairFilter, of: DatasetCard, source: str) -> tuple[str, str]:
    """The general modality, then the other."""
    for name in (how.pair.first, how.pair.second):
        if name not in of.names:
            problem = f"there is no modality {name!r}"
            remedy = f"{suggestion(name, of.names)}it has {', '.join(of.names)}"
            raise InputError.at(source, problem, remedy)
    if how.generic is not None and how.generic not in how.pair:
        problem = f"{how.generic!r} is not in the pair"
        raise InputError.at(f"{source}, pair {how.pair}", problem, "name one of the two generic")
    general = how.generic or (USUAL_GENERIC if USUAL_GENERIC in how.pair else "")
    if not general and how.by != "cosine":
        problem = "none of the two is text, so it is not known which entails the other"
        remedy = f"name it: --generic {how.pair.first}, or --generic {how.pair.second}"
        raise InputError.at(f"{source}, pair {how.pair}", problem, remedy)
    first, second = how.pair.first, how.pair.second
    return (second, first) if general == second else (first, second)


def _check_target(target: Path, path: Path) -> None:
    """Find out before minutes of training that nothing can be written."""
    if target.exists() or target.is_symlink():
        raise InputError.at(target, "is there already", "remove it, or choose another place")
    kind, ending = ("store", "") if path.is_dir() else ("pack", ".npz")
    if (target.suffix == ".npz") != bool(ending):
        remedy = f"name it {target.with_suffix(ending)}"
        raise InputError.at(target, f"{path} is a {kind}, and is filtered into one", remedy)
    check_target(target)


def _hype_columns(names: Sequence[str]) -> tuple[str, ...]:
    return (*(f"eps_{name}" for name in names), "distance", "cosine", "score")


def _scored(
    pool: Pool, how: PairFilter, after_step: Callable[[], None]
) -> tuple[Columns, Settings]:
    """The terms of every pair, and what they follow from."""

    def trained(kind: type[AnyScorer], purpose: str) -> AnyScorer:
        return train(
            kind,
            pool.modalities,
            pool.batches(how.scorer, purpose),
            how.scorer,
            device=pool.device,
            after_step=after_step,
        )

    settings: Settings = {"scorer": asdict(how.scorer)}
    general, other = pool.embedded(trained(CosineScorer, "cosine"))
    cosine = (general * other).sum(1)
    columns = {"cosine": cosine}
    if how.by != "cosine":
        scorer = trained(HyperbolicScorer, "hyperbolic")
        curvature = scorer.double_precision().curvature.item()
        generator = torch.Generator().manual_seed(seed_for(how.scorer.seed, "references"))
        references = torch.randperm(len(pool.rows), generator=generator)[: how.references]
        found = hype_terms(
            *pool.embedded(scorer),
            cosine,
            curvature=curvature,
            references=references.to(pool.device),
        )
        values = (found.general, found.other, found.distance, cosine, found.score)
        columns = dict(zip(_hype_columns(pool.names), values, strict=True))
        settings |= {"curvature": curvature, "references": len(references)}
    for name, column in columns.items():
        if not bool(column.isfinite().all()):
            raise FloatingPointError(f"the {name} of some pairs is not finite: a scorer diverged")
    return {name: values.cpu().numpy() for name, values in columns.items()}, settings


def _kept(how: PairFilter, columns: Columns, count: int, place: str) -> NDArray[np.bool_]:
    hype, cosine = columns.get("score"), columns["cosine"]
    if how.threshold is not None:
        return above(how.threshold, cosine if how.by == "cosine" or hype is None else hype, place)
    return best(how.by, count, hype=hype, cosine=cosine)


def _rows(pool: Pool, kept: NDArray[np.bool_], how: PairFilter) -> NDArray[np.int64]:
    """The items that are left, ascending."""
    left = np.ones(len(pool.dataset), dtype=np.bool_)
    if how.without_pair == "drop":
        left[pool.dataset.split == Split.TRAIN] = False
    left[pool.rows] = kept
    return np.flatnonzero(left)


def _check_left(dataset: Dataset, rows: NDArray[np.int64], place: str) -> None:
    training = rows[dataset.split[rows] == Split.TRAIN]
    for name, column in dataset.columns.items():
        if not column.present[training].any():
            remedy = "keep more pairs, or the items without one: --without-pair keep"
            raise InputError.at(place, f"no training item that is left has {name!r}", remedy)


def _write(path: Path, target: Path, rows: NDArray[np.int64], note: str) -> None:
    if path.is_dir():
        # Stores need libraries that packs do not.
        resolve_name("continual_mm.data.store.subset:write_subset")(path, target, rows, note=note)
        return
    with write_errors(str(target)):
        write_pack_rows(path, target, rows)
