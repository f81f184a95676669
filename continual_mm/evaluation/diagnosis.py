"""Why old pairs forget: what turned, what was rearranged, and which queries broke."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.arrivals import Arrival
from continual_mm.definitions.modality import Pair
from continual_mm.evaluation.pairs import Direction, Evaluation, Gallery, PairRanks
from continual_mm.losses.contrastive import unit
from continual_mm.metrics.geometry import change_between, change_inside, linear_cka
from continual_mm.metrics.hubness import hubness

ITEMS = 256  # compared, at most
QUERIES = 8  # that broke worst are named, of each direction
GAINED = 3  # and that gained most
ANSWERS = 3  # that each of these finds now
LONGEST = 200  # characters of a caption


@dataclass(frozen=True, slots=True)
class Item:
    """An item by its row in the dataset, its id, and its caption where it has one."""

    row: int
    id: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Query:
    """A query answered right at the end of the stage before and not now, or now and not then.

    ``query`` is the modality that asks; ``before`` and ``rank`` are the places of its right answer
    then and now, from 1; ``finds`` is what stands first now.
    """

    query: str
    item: Item
    before: int
    rank: int
    finds: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class PairDiagnosis:
    """What became of an old pair since the end of the stage before.

    Attributes:
        between: How far similarities between its modalities have changed, in [0, 1], see
            :func:`~continual_mm.metrics.geometry.change_between`; what the modalities share, such
            as a rotation, is no change.
        partners: Mean cosine of an item's two embeddings, then and now.
        recall: R@1 as a fraction, then and now, both directions averaged.
        broken: Queries that were answered right then and are not now.
        mended: Those that are now and were not then.
        hubness: Direction -> skewness of how often an answer is among the nearest ten.
        queries: Those that broke worst, then those that gained most, at the ends of stages.
    """

    between: float
    partners: tuple[float, float]
    recall: tuple[float, float]
    broken: int
    mended: int
    hubness: dict[str, float]
    queries: tuple[Query, ...] = ()


@dataclass(frozen=True, slots=True)
class ModalityDiagnosis:
    """What became of an old modality by itself.

    Attributes:
        inside: How far similarities among its items have changed, in [0, 1]; turned as a whole
            it is 0.
        cka: Linear CKA of its embeddings then and now, 1 where nothing but a rotation happened.
    """

    inside: float
    cka: float


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All old pairs and modalities at one moment after the first stage."""

    stage: int  # from 1
    step: int
    final: bool
    pairs: dict[str, PairDiagnosis]
    modalities: dict[str, ModalityDiagnosis]

    def as_json(self) -> dict[str, Any]:
        """The record as ``scores.json`` has it."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read what :meth:`as_json` gave, where a file has null for NaN."""
        pairs = {name: _pair(one) for name, one in record["pairs"].items()}
        modalities = {
            name: ModalityDiagnosis(*(_number(one[key]) for key in ("inside", "cka")))
            for name, one in record["modalities"].items()
        }
        return cls(record["stage"], record["step"], record["final"], pairs, modalities)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _pair(record: Mapping[str, Any]) -> PairDiagnosis:
    queries = [
        Query(
            one["query"],
            Item(**one["item"]),
            one["before"],
            one["rank"],
            tuple(Item(**each) for each in one["finds"]),
        )
        for one in record["queries"]
    ]
    return PairDiagnosis(
        between=_number(record["between"]),
        partners=_both(record["partners"]),
        recall=_both(record["recall"]),
        broken=record["broken"],
        mended=record["mended"],
        hubness={way: _number(value) for way, value in record["hubness"].items()},
        queries=tuple(queries),
    )


def _both(values: Sequence[float | None]) -> tuple[float, float]:
    then, now = values
    return _number(then), _number(now)


@dataclass(slots=True)
class _Kept:
    """Of a pair at a stage's end: evenly spaced items, their unit embeddings, and all ranks."""

    rows: Tensor
    first: Tensor
    second: Tensor
    asked: NDArray[np.int64]
    ranks: dict[Direction, NDArray[np.float64]] = field(default_factory=dict)


class Diagnostician:
    """Compares every evaluation of one split with the end of the stage before; an observer.

    It keeps at most ``items`` embeddings of every old pair, and the ranks of its queries. It uses
    no RNG, and no labels. The callbacks are called with each record.
    """

    on_device = False

    def __init__(
        self,
        *callbacks: Callable[[Diagnosis], None],
        arrivals: Sequence[Arrival],
        dataset: Dataset,
        split: str = "test",
        items: int = ITEMS,
    ) -> None:
        self._callbacks = callbacks
        self._trained = [set(arrival.trained) for arrival in arrivals]
        self._dataset = dataset
        self._split = split
        self._items = items
        self._kept: dict[Pair, _Kept] = {}

    def __call__(self, evaluation: Evaluation, gallery: Gallery) -> None:
        """Compare; at a stage's end, keep what the next stage is compared with."""
        if evaluation.split != self._split:
            return
        ranked = {found.pair: found for found in evaluation.pairs}
        old = [pair for pair in self._kept if pair in ranked]
        if old:
            record = Diagnosis(
                stage=evaluation.stage + 1,
                step=evaluation.step,
                final=evaluation.final,
                pairs={
                    str(pair): self._of_pair(ranked[pair], gallery, named=evaluation.final)
                    for pair in old
                },
                modalities=self._of_modalities(old, gallery),
            )
            for callback in self._callbacks:
                callback(record)
        if evaluation.final:
            known = set[Pair]().union(*self._trained[: evaluation.stage + 1])
            self._kept = {
                pair: self._keep(found, gallery)
                for pair, found in sorted(ranked.items())
                if pair in known
            }

    def _keep(self, found: PairRanks, gallery: Gallery) -> _Kept:
        count = min(len(found.rows), self._items)
        chosen = torch.from_numpy(found.rows[np.arange(count) * len(found.rows) // max(count, 1)])
        first, second = _embeddings(gallery, found.pair, chosen)
        return _Kept(chosen, first.cpu(), second.cpu(), found.rows, dict(found.ranks))

    def _of_pair(self, found: PairRanks, gallery: Gallery, *, named: bool) -> PairDiagnosis:
        kept = self._kept[found.pair]
        first, second = (side.cpu() for side in _embeddings(gallery, found.pair, kept.rows))
        then = {way: kept.ranks[way] == 0 for way in found.ranks}
        now = {way: ranks == 0 for way, ranks in found.ranks.items()}
        lost = {way: then[way] & ~now[way] & ~np.isnan(found.ranks[way]) for way in now}
        won = {way: now[way] & ~then[way] for way in now}
        whole = _embeddings(gallery, found.pair, torch.from_numpy(found.rows))
        sides = dict(zip((found.pair.first, found.pair.second), whole, strict=True))
        queries = [*self._queries(found, lost, sides), *self._queries(found, won, sides)]
        return PairDiagnosis(
            between=change_between((kept.first, kept.second), (first, second)),
            partners=(_mean_cosine(kept.first, kept.second), _mean_cosine(first, second)),
            recall=(_recall(kept.ranks), _recall(found.ranks)),
            broken=int(sum(each.sum() for each in lost.values())),
            mended=int(sum(each.sum() for each in won.values())),
            hubness={
                f"{query} to {answer}": hubness(sides[query], sides[answer])
                for query, answer in found.pair.directions
            },
            queries=tuple(queries) if named else (),
        )

    def _queries(
        self,
        found: PairRanks,
        chosen: Mapping[Direction, NDArray[np.bool_]],
        sides: Mapping[str, Tensor],
    ) -> Iterator[Query]:
        """Those of some queries that fell or rose furthest, direction by direction."""
        kept = self._kept[found.pair]
        for (query, answer), some in chosen.items():
            before, ranks = kept.ranks[query, answer], found.ranks[query, answer]
            places = np.flatnonzero(some)
            change = ranks[places] - before[places]
            most = QUERIES if (change > 0).any() else GAINED
            places = places[np.argsort(-np.abs(change), kind="stable")][:most]
            if not len(places):
                continue
            scores = sides[query][torch.from_numpy(places)] @ sides[answer].T
            best = scores.topk(min(ANSWERS, scores.shape[1]), dim=1).indices.cpu().numpy()
            for place, nearest in zip(places, best, strict=True):
                yield Query(
                    query,
                    self._item(found.rows[place]),
                    int(before[place]) + 1,
                    int(ranks[place]) + 1,
                    tuple(map(self._item, found.rows[nearest])),
                )

    def _of_modalities(self, old: Sequence[Pair], gallery: Gallery) -> dict[str, ModalityDiagnosis]:
        """Of each the items that the first pair with it has kept."""
        found: dict[str, ModalityDiagnosis] = {}
        for pair in old:
            kept = self._kept[pair]
            now = _embeddings(gallery, pair, kept.rows)
            sides = zip((pair.first, pair.second), (kept.first, kept.second), now, strict=True)
            for name, before, after in sides:
                if name not in found:
                    later = after.cpu()
                    found[name] = ModalityDiagnosis(
                        change_inside(before, later), linear_cka(before, later)
                    )
        return found

    def _item(self, row: int) -> Item:
        rows = np.array([row], dtype=np.int64)
        texts = self._dataset.text
        text = "" if texts is None else str(texts[rows][0])[:LONGEST]
        return Item(int(row), str(self._dataset.ids[rows][0]), text)

    def state(self) -> dict[str, Tensor]:
        """What is kept of every old pair."""
        found: dict[str, Tensor] = {}
        for pair, kept in self._kept.items():
            parts = {
                "rows": kept.rows,
                "first": kept.first,
                "second": kept.second,
                "asked": torch.from_numpy(kept.asked),
            }
            parts |= {
                f"ranks/{' to '.join(way)}": torch.from_numpy(ranks)
                for way, ranks in kept.ranks.items()
            }
            found |= {f"{pair}/{part}": value for part, value in parts.items()}
        return found

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore :meth:`state`."""
        parts: dict[Pair, dict[str, Tensor]] = {}
        for key, value in sorted(state.items()):
            pair, _, part = key.partition("/")
            parts.setdefault(Pair.parse(pair), {})[part] = value.cpu()
        self._kept = {
            pair: _Kept(
                of["rows"],
                of["first"],
                of["second"],
                of["asked"].numpy(),
                {way: of[f"ranks/{' to '.join(way)}"].numpy() for way in pair.directions},
            )
            for pair, of in parts.items()
        }


def _embeddings(gallery: Gallery, pair: Pair, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Unit embeddings of some dataset rows that have both modalities, as the pair is scored."""
    views = gallery.of_pair(pair)
    first, second = (
        unit(
            views[name].detach()[
                torch.searchsorted(gallery.rows[name], rows).to(views[name].device)
            ]
        )
        for name in (pair.first, pair.second)
    )
    return first, second


def _mean_cosine(first: Tensor, second: Tensor) -> float:
    return float((first.double() * second.double()).sum(1).mean())


def _recall(ranks: Mapping[Direction, NDArray[np.float64]]) -> float:
    each = [float((known[~np.isnan(known)] == 0).mean()) for known in ranks.values()]
    return float(np.mean(each))
