"""What a finished run measured, read from its folder and checked.

Needs neither torch nor Avalanche, so that a comparison does not wait for them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from continual_mm.data.archive import Archive
from continual_mm.data.findings import Findings
from continual_mm.definitions.modality import Pair
from continual_mm.definitions.scenario import ProtocolKind
from continual_mm.metrics.answers import SERIES, Answers, Series, counted
from continual_mm.runs import records
from continual_mm.runs.history import stability
from continual_mm.system.errors import InputError, Problem


class DefinitionRecord(records.Record):
    """A protocol in the definition of a run."""

    name: str
    kind: ProtocolKind


def kinds_of(scenario: Mapping[str, Any]) -> dict[str, str]:
    """Name -> kind of a scenario's protocols as the run counted it; of kinds that are known."""
    space = scenario.get("space")
    bugs = space.get("bugs", ()) if isinstance(space, Mapping) else ()
    known = []
    for said in scenario.get("protocols", ()):
        with suppress(ValidationError):
            known.append(DefinitionRecord.model_validate(said))
    return {one.name: counted(one.kind, bugs) for one in known}


def read_answers(
    archive: Archive, place: str, series: Series, findings: Findings
) -> Answers | None:
    """One series at the end of one stage; None, and a problem, if it cannot be what a run wrote.

    Args:
        archive: The file of the stage.
        place: What stands before ``/units`` and ``/values``.
        series: What is read.
        findings: Takes problems.
    """
    units, values = (archive.read(f"{place}/{part}") for part in ("units", "values"))
    if units is None or values is None:
        return None
    check_units(f"{place}/units", units, findings)
    check_values(f"{place}/values", values, (series.rows, units.size), findings)
    if findings.faulty & {f"{place}/units", f"{place}/values"}:
        return None
    groups = read_groups(archive, f"{place}/groups", findings)
    return Answers(units.astype(np.int64), values.astype(np.float64), groups)


def read_groups(archive: Archive, name: str, findings: Findings) -> tuple[str, ...]:
    """Names of groups of queries; none where there are none, or they are no list of names."""
    found = archive.read(name) if name in archive.headers else None
    if found is None:
        return ()
    if found.ndim != 1 or found.dtype.kind != "U":
        findings.about(name, "is no list of names")
        return ()
    return tuple(found.tolist())


def check_units(name: str, units: NDArray[Any], findings: Findings) -> None:
    """Complain about what is no ascending list of numbers of queries."""
    kind = units.ndim == 1 and units.dtype.kind in "iu" and units.size
    if not kind or (np.diff(units.astype(np.int64)) <= 0).any():
        findings.about(name, "is no ascending list of queries")


def check_values(
    name: str, values: NDArray[Any], shape: tuple[int, ...], findings: Findings
) -> None:
    """Complain about values of another shape, and below 0."""
    if values.shape != shape or values.dtype.kind not in "fu" or (values < 0).any():
        findings.about(name, f"does not hold numbers from 0 of shape {shape}")


def series_of(kind: str) -> Mapping[str, Series]:
    """Series of a kind of protocol, by name."""
    return {series.name: series for series in SERIES[kind]}


@dataclass(frozen=True, slots=True)
class PairFacts:
    """What a pair is to its scenario.

    Attributes:
        birth: 0-based stage at which both modalities were there.
        role: ``old`` was trained before the last stage, ``new`` first in it, ``emergent`` never.
        chance: Recall at 1 of a random order, both directions averaged.
    """

    birth: int
    role: records.Role
    chance: float


@dataclass(frozen=True, slots=True)
class Ranked:
    """The test queries of one pair after one stage.

    Attributes:
        rows: (n,) dataset rows, ascending.
        ranks: (2, n) 0-based rank of the right answer in either direction.
    """

    rows: NDArray[np.int64]
    ranks: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run that came to its end.

    Attributes:
        folder: Where it lies.
        scenario: The scenario's name.
        strategy: The strategy's name.
        seed: What weights, order, shares and memory followed from.
        joint: Whether everything was trained at once; only the last stage is then ranked.
        task: What all runs of the scenario have in common: its definition, data and pairs.
        protection: What all runs of the strategy have in common: its definition.
        arrivals: Names of the modalities that each stage added.
        pairs: Every pair, sorted by name.
        ranked: (0-based stage, pair) -> ranks at the stage's end.
        memory_bytes: Kept of the past.
        seconds: Duration.
        stability_gap: How far old pairs fell inside the last stage, mean over pairs; NaN if nobody
            looked there.
        cumulative: Whether each stage was trained on everything seen until then.
        memory_items: Items kept of the past; this and the next two are None where a run of an
            earlier version did not say.
        steps: Optimiser steps of all stages, those that plugins made included.
        step_seconds: Median time of a step of the last stage.
        judged: (0-based stage, protocol, series) -> answers at the stage's end.
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
    cumulative: bool = False
    memory_items: int | None = None
    steps: int | None = None
    step_seconds: float | None = None
    judged: Mapping[tuple[int, str, str], Answers] = field(default_factory=dict)

    @property
    def protocols(self) -> dict[str, str]:
        """Name -> kind of the protocols of the scenario."""
        return kinds_of(self.task["scenario"])


def ranked_stages(count: int, *, joint: bool) -> range:
    """0-based stages at whose end pairs are ranked: joint training has its last one only."""
    return range(count - 1 if joint else 0, count)


def read_finished(folder: Path) -> FinishedRun:
    """Read a finished run.

    Raises:
        InputError: If a file is missing or damaged.
    """
    definition = records.read(records.Definition, folder / "definition.json")
    cost = records.read(records.Cost, folder / "cost.json")
    scores = records.read(records.Scores, folder / "scores.json")
    count = len(scores.stages)
    chance = _chance(scores, folder / "scores.json")
    pairs = {
        name: PairFacts(known.birth - 1, known.role, chance[name])
        for name, known in sorted(scores.pairs.items())
    }
    ranked: dict[tuple[int, str], Ranked] = {}
    for stage in ranked_stages(count, joint=definition.strategy.joint):
        born = [name for name, facts in pairs.items() if facts.birth <= stage]
        found = _ranks(folder / "ranks" / f"stage-{stage + 1}.npz", born)
        ranked |= {(stage, name): ranks for name, ranks in found.items()}
    kinds = kinds_of(definition.scenario.model_dump())
    judged: dict[tuple[int, str, str], Answers] = {}
    for stage in dict.fromkeys(one.stage for one in scores.protocols):
        names = [one.name for one in scores.protocols if one.stage == stage and one.name in kinds]
        given = {name: kinds[name] for name in names}
        answers = _judged(folder / "ranks" / f"stage-{stage}.npz", given)
        judged |= {(stage - 1, *series): found for series, found in answers.items()}
    return FinishedRun(
        folder=folder,
        scenario=definition.scenario.name,
        strategy=definition.strategy.name,
        seed=definition.seed,
        joint=definition.strategy.joint,
        cumulative=definition.strategy.cumulative,
        task={
            "scenario": definition.scenario.model_dump(),
            "data": definition.data,
            "pairs": scores.model_dump(include={"pairs"})["pairs"],
        },
        protection=definition.strategy.model_dump(),
        arrivals=tuple(stage.added for stage in scores.stages),
        pairs=pairs,
        ranked=ranked,
        **cost.model_dump(),
        stability_gap=stability(
            scores.evaluations,
            [name for name, facts in pairs.items() if facts.role == "old"],
            stages=count,
            split=records.SPLIT,
        ).gap,
        judged=judged,
    )


def _chance(scores: records.Scores, path: Path) -> dict[str, float]:
    """Pair -> chance at the end of the last stage, directions averaged."""
    directions: dict[str, list[float]] = {name: [] for name in scores.pairs}
    for score in scores.evaluations:
        last = score.final and score.stage == len(scores.stages)
        if last and score.split == records.SPLIT and score.pair in directions:
            directions[score.pair].append(score.chance)
    lacking = [name for name, values in directions.items() if not values]
    if lacking:
        problem = (
            f"is damaged: no {records.SPLIT} score of {', '.join(lacking)} after the last stage"
        )
        raise InputError(Problem(str(path), problem, records.REMEDY))
    return {name: float(np.mean(values)) for name, values in directions.items()}


def _ranks(path: Path, pairs: Sequence[str]) -> dict[str, Ranked]:
    """Pair -> ranks, from the file of one stage."""
    if not pairs:
        return {}
    with _opened(path) as (archive, findings):
        read = {pair: _ranked(archive, pair, findings) for pair in pairs}
    return {pair: ranked for pair, ranked in read.items() if ranked is not None}


def _judged(path: Path, kinds: Mapping[str, str]) -> dict[tuple[str, str], Answers]:
    """(protocol, series) -> answers, from the file of one stage."""
    read: dict[tuple[str, str], Answers | None] = {}
    with _opened(path) as (archive, findings):
        for protocol, kind in kinds.items():
            for name, series in series_of(kind).items():
                place = f"protocol/{protocol}/{name}"
                read[protocol, name] = read_answers(archive, place, series, findings)
    return {place: answers for place, answers in read.items() if answers is not None}


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Archive, Findings]]:
    """The file of a stage, and what is found wrong with it, which is refused afterwards."""
    findings = Findings(str(path))
    try:
        with Archive(path, findings) as archive:
            yield archive, findings
        findings.refuse()
    except InputError as error:
        raise InputError(
            Problem(one.place, one.message, records.REMEDY) for one in error.problems
        ) from error


def _ranked(archive: Archive, pair: str, findings: Findings) -> Ranked | None:
    """One pair's ranks; None, and a problem, if they cannot be what a run wrote."""
    rows_name = f"{records.SPLIT}/{pair}/rows"
    rows = archive.read(rows_name)
    ranks = []
    for query, gallery in Pair.parse(pair).directions:
        name = f"{records.SPLIT}/{pair}/{query} to {gallery}"
        found = archive.read(name)
        if found is None or rows is None:
            continue
        if found.shape != rows.shape or found.dtype.kind != "f" or not are_ranks(found, rows.size):
            findings.about(name, "is not one rank for each row")
        ranks.append(found)
    if rows is None or len(ranks) < 2:
        return None
    if rows.ndim != 1 or rows.dtype.kind != "i" or not rows.size or (np.diff(rows) <= 0).any():
        findings.about(rows_name, "is no ascending list of dataset rows")
    return None if findings.faulty else Ranked(rows, np.stack(ranks))


def are_ranks(values: NDArray[Any], gallery: int | NDArray[np.int64]) -> bool:
    """Whether numbers can be ranks counted from 0 in galleries of so many items; NaN cannot."""
    return bool(((values >= 0) & (values < gallery)).all())
