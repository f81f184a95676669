"""What a finished run measured, read from its folder; needs neither torch nor Avalanche."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from continual_mm.data.archive import Archive
from continual_mm.data.findings import Findings
from continual_mm.definitions.coverage import HANDFUL
from continual_mm.definitions.modality import Pair
from continual_mm.definitions.scenario import ProtocolKind
from continual_mm.metrics.answers import SERIES, Answers, Series, counted
from continual_mm.runs import records
from continual_mm.runs.history import near_chance, stability
from continual_mm.system.errors import InputError
from continual_mm.system.reading import reads


class ProtocolRecord(records.Record):
    """A protocol in the definition of a run."""

    name: str
    kind: ProtocolKind


@dataclass(frozen=True, slots=True)
class PairFacts:
    """What a pair is to its scenario.

    ``birth`` is the 0-based stage at which both modalities were there, ``chance`` recall at 1 of a
    random order with directions averaged, ``galleries`` how many answers there are in each
    direction; none where as many as items.
    """

    birth: int
    role: records.Role
    chance: float
    galleries: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Ranked:
    """The test queries of a pair after a stage: (n,) ascending rows and (2, n) 0-based ranks.

    A rank is NaN where another row has asked the query already. ``recordings``, (n,), are numbers,
    equal for rows that share a recording; None where none do.
    """

    rows: NDArray[np.int64]
    ranks: NDArray[np.float64]
    recordings: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A finished run.

    ``task`` is what all runs of the scenario have in common (definition, data, pairs),
    ``protection`` the definition of the strategy. Pairs are sorted by name. A joint run is ranked
    at its last stage only. ``steps`` counts those that plugins made, too, ``step_seconds`` is the
    median of the last stage; they and ``memory_items`` are None in runs of earlier versions.
    ``stability_gap`` is NaN without an evaluation inside the last stage, ``mixed_recall`` (R@10 in
    an index of all modalities) below three modalities, ``earlier_recall`` (R@1 of old pairs in an
    index of the stage before) in joint training, and both in runs of earlier versions.
    ``vector_size`` is how many numbers an item has, None in runs of earlier versions.
    ``near_chance`` has each 1-based stage and pair that it trained without learning it, ``handful``
    those that it trained on so few items, and how many; ``unscored`` are pairs that no stage trains
    and no test item has.
    """

    folder: Path
    scenario: str
    strategy: str
    seed: int
    joint: bool
    task: Mapping[str, Any]
    protection: Mapping[str, Any]
    arrivals: tuple[tuple[str, ...], ...]
    pairs: Mapping[str, PairFacts]
    ranked: Mapping[tuple[int, str], Ranked]
    memory_bytes: int
    seconds: float
    stability_gap: float = math.nan
    mixed_recall: float = math.nan
    earlier_recall: float = math.nan
    near_chance: tuple[tuple[int, str], ...] = ()
    handful: Mapping[tuple[int, str], int] = field(default_factory=dict)
    unscored: tuple[str, ...] = ()
    cumulative: bool = False
    memory_items: int | None = None
    steps: int | None = None
    step_seconds: float | None = None
    vector_size: int | None = None
    judged: Mapping[tuple[int, str, str], Answers] = field(default_factory=dict)

    @property
    def split(self) -> records.Split:
        """Whose items were ranked: ``validation`` for a trial of a search, else ``test``."""
        split: records.Split = self.task.get("split", "test")
        return split

    @property
    def protocols(self) -> dict[str, tuple[Series, ...]]:
        """Name -> series of the protocols of the scenario."""
        return protocols_of(self.task["scenario"])


def fewest(runs: Iterable[FinishedRun]) -> dict[tuple[int, str], int]:
    """1-based stage and pair -> the least items that any of some runs trained it on, if few."""
    found: dict[tuple[int, str], int] = {}
    for run in runs:
        for cell, items in run.handful.items():
            found[cell] = min(items, found.get(cell, items))
    return found


def protocols_of(scenario: Mapping[str, Any]) -> dict[str, tuple[Series, ...]]:
    """Name -> series of a scenario's protocols, without those of a kind that is not known."""
    space = scenario.get("space")
    bugs = space.get("bugs", ()) if isinstance(space, Mapping) else ()
    known = []
    for value in scenario.get("protocols", ()):
        with suppress(ValidationError):
            known.append(ProtocolRecord.model_validate(value))
    return {one.name: SERIES[counted(one.kind, bugs)] for one in known}


def ranked_stages(count: int, *, joint: bool) -> range:
    """0-based stages at whose end pairs are ranked: joint training has its last one only."""
    return range(count - 1 if joint else 0, count)


@reads
def read_finished(folder: Path) -> FinishedRun:
    """Read a finished run; missing or damaged files are refused."""
    definition = records.read(records.Definition, folder / "definition.json")
    cost = records.read(records.Cost, folder / "cost.json")
    scores = records.read(records.Scores, folder / "scores.json")
    scores.check_ranks(folder)
    strategy, scenario = definition.strategy, definition.scenario.model_dump()
    split = definition.split
    chance = _chance(scores, folder / "scores.json", split)
    pairs = {
        name: PairFacts(known.birth - 1, known.role, *chance[name])
        for name, known in sorted(scores.pairs.items())
    }
    protocols = protocols_of(scenario)
    ranked: dict[tuple[int, str], Ranked] = {}
    judged: dict[tuple[int, str, str], Answers] = {}
    for stage in ranked_stages(len(scores.stages), joint=strategy.joint):
        born = [name for name, facts in pairs.items() if facts.birth <= stage]
        scored = [one.name for one in scores.protocols if one.stage == stage + 1]
        if not (born or scored):
            continue
        path = folder / "ranks" / f"stage-{stage + 1}.npz"
        with arrays_of(path, (f"{split}/", "protocol/"), records.REMEDY) as arrays:
            ranked |= {(stage, pair): _ranked(arrays, f"{split}/{pair}") for pair in born}
            for name in scored:
                for series in protocols.get(name, ()):
                    place = f"protocol/{name}/{series.name}"
                    judged[stage, name, series.name] = answers_of(
                        series,
                        arrays[f"{place}/units"],
                        arrays[f"{place}/values"],
                        arrays.get(f"{place}/groups"),
                        arrays.get(f"{place}/recordings"),
                    )
    return FinishedRun(
        folder=folder,
        scenario=definition.scenario.name,
        strategy=strategy.name,
        seed=definition.seed,
        joint=strategy.joint,
        cumulative=strategy.cumulative,
        task={
            "scenario": scenario,
            "data": definition.data,
            "pairs": scores.model_dump(include={"pairs"})["pairs"],
            **({} if split == "test" else {"split": split}),
        },
        protection=strategy.model_dump(),
        arrivals=tuple(stage.added for stage in scores.stages),
        pairs=pairs,
        ranked=ranked,
        **cost.model_dump(),
        stability_gap=stability(
            scores.evaluations,
            [name for name, facts in pairs.items() if facts.role == "old"],
            stages=len(scores.stages),
            split=split,
        ).gap,
        mixed_recall=_mixed_recall(scores),
        earlier_recall=_earlier_recall(scores),
        near_chance=tuple(
            (stage, pair)
            for stage, one in enumerate(scores.stages, start=1)
            for pair in near_chance(
                scores.evaluations, one.trained, len(scores.stages) if strategy.joint else stage
            )
        ),
        handful={
            (stage, pair): items
            for stage, one in enumerate(scores.stages, start=1)
            for pair, items in one.items.items()
            if items < HANDFUL and pair in pairs
        },
        unscored=scores.unscored,
        judged=judged,
    )


def is_whole(folder: Path) -> bool:
    """Whether a finished run can be read."""
    try:
        read_finished(folder)
    except InputError:
        return False
    return True


def _mixed_recall(scores: records.Scores) -> float:
    """R@10 of all partners in an index of all modalities, mean over query modalities."""
    last = len(scores.stages)
    found = [
        one.measures["recall@10"]
        for one in scores.indexes
        if one.kind == "mixed" and one.stage == last
    ]
    return float(np.mean(found)) if found else math.nan


def _earlier_recall(scores: records.Scores) -> float:
    """R@1 of old pairs in an index of the stage before, mean over pairs and directions."""
    last = len(scores.stages)
    old = {name for name, known in scores.pairs.items() if known.role == "old"}
    found = [
        one.measures["recall@1"]
        for one in scores.indexes
        if one.kind == "earlier"
        and one.stage == last
        and str(Pair(*sorted((one.query, *one.gallery)))) in old
    ]
    return float(np.mean(found)) if found else math.nan


def _chance(
    scores: records.Scores, path: Path, split: str
) -> dict[str, tuple[float, tuple[int, ...]]]:
    """Pair -> chance at the end of the last stage, directions averaged, and their galleries."""
    directions: dict[str, list[tuple[float, int]]] = {name: [] for name in scores.pairs}
    for score in scores.evaluations:
        last = score.final and score.stage == len(scores.stages)
        if last and score.split == split and score.pair in directions:
            directions[score.pair].append((score.chance, score.gallery))
    lacking = [name for name, values in directions.items() if not values]
    if lacking:
        problem = f"is damaged: no {split} score of {', '.join(lacking)} after the last stage"
        raise InputError.at(path, problem, records.REMEDY)
    return {
        name: (
            float(np.mean([chance for chance, _ in values])),
            tuple(gallery for _, gallery in values if gallery),
        )
        for name, values in directions.items()
    }


def _ranked(arrays: Mapping[str, NDArray[Any]], place: str) -> Ranked:
    ways = Pair.parse(place.rpartition("/")[2]).directions
    directions = [f"{place}/{first} to {second}" for first, second in ways]
    return ranked_of(
        arrays[f"{place}/rows"],
        np.stack([arrays[name] for name in directions]),
        arrays.get(f"{place}/recordings"),
    )


@contextmanager
def arrays_of(
    path: Path, prefixes: tuple[str, ...], remedy: str
) -> Iterator[dict[str, NDArray[Any]]]:
    """The arrays of an ``.npz`` file whose names begin with one of the prefixes.

    The file's own checksums guard every value, so a block need not check what a run wrote: that an
    array is missing or does not fit is refused as damage of the file.
    """
    findings = Findings(str(path))
    try:
        with Archive(path, findings) as archive:
            names = [name for name in archive.headers if name.startswith(prefixes)]
            arrays = {name: archive.read(name) for name in names}
        findings.refuse()
        yield {name: array for name, array in arrays.items() if array is not None}
    except InputError as error:
        raise InputError(replace(one, remedy=remedy) for one in error.problems) from error
    except KeyError as error:
        raise InputError.at(path, f"is damaged: it lacks {error}", remedy) from error
    except (IndexError, TypeError, ValueError) as error:
        raise InputError.at(path, f"is damaged: {error}", remedy) from error


def ranked_of(
    rows: NDArray[Any], ranks: NDArray[Any], recordings: NDArray[Any] | None = None
) -> Ranked:
    """The ranks of a pair; a ValueError if there are not those of each row and direction."""
    found = Ranked(
        rows.astype(np.int64, casting="same_kind"),
        ranks.astype(np.float64, casting="same_kind"),
        None if recordings is None else recordings.astype(np.int64, casting="same_kind"),
    )
    asked = ~np.isnan(found.ranks)
    inside = ((found.ranks[asked] >= 0) & (found.ranks[asked] < rows.size)).all()
    fits = asked.all() if recordings is None else recordings.shape == rows.shape
    if found.ranks.shape != (2, rows.size) or not (inside and fits and asked.any(axis=1).all()):
        raise ValueError("there is not one rank for each row")
    return found


def answers_of(
    series: Series,
    units: NDArray[Any],
    values: NDArray[Any],
    groups: NDArray[Any] | None,
    recordings: NDArray[Any] | None = None,
) -> Answers:
    """The answers of a protocol's series, checked to be numbers of the series' shape."""
    if values.shape != (series.rows, units.size):
        raise ValueError(f"'{series.name}' is not of shape {(series.rows, units.size)}")
    if recordings is not None and recordings.shape != units.shape:
        raise ValueError(f"'{series.name}' has not a recording for each of {units.size} queries")
    return Answers(
        units.astype(np.int64, casting="same_kind"),
        values.astype(np.float64, casting="same_kind"),
        () if groups is None else tuple(groups.tolist()),
        None if recordings is None else recordings.astype(np.int64, casting="same_kind"),
    )
