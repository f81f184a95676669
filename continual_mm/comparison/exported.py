"""A small folder that ``export`` wrote: what a comparison needs of many runs, read and checked.

``runs.csv`` has a row per run, ``definitions.json`` every definition once, and ``ranks.npz`` the
ranks of all queries. What a row says in percent follows from the ranks and is for people: it is
never read back. The three have to name the same runs: what is missing from one of them would be
lost for good when the next export writes all of them anew.
"""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError

from continual_mm.comparison.finished import (
    FinishedRun,
    PairFacts,
    Ranked,
    are_ranks,
    check_units,
    check_values,
    kinds_of,
    ranked_stages,
    read_groups,
    series_of,
)
from continual_mm.comparison.run_table import HEADINGS
from continual_mm.data.archive import Archive
from continual_mm.data.findings import Findings
from continual_mm.metrics.answers import Answers
from continual_mm.runs import records
from continual_mm.system.errors import InputError, Problem

UNITS, VALUES, GROUPS = "protocol-units", "protocol-values", "protocol-groups"
"""How the names of arrays begin: queries of a scenario, values of a strategy's seeds, and names of
groups of queries."""


def judged_arrays(
    scenario: str, strategies: Mapping[str, Sequence[FinishedRun]]
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Name and array of everything that protocols found in a scenario.

    Raises:
        InputError: If runs were asked different queries, or after different stages.
    """
    units: dict[str, NDArray[np.int64]] = {}
    groups: dict[str, tuple[str, ...]] = {}
    for strategy, runs in strategies.items():
        cells = sorted(runs[0].judged)
        for run in runs:
            if sorted(run.judged) != cells:
                raise _odd(run, "was scored by protocols after other stages")
            for (_, protocol, series), answers in run.judged.items():
                known = units.setdefault(f"{protocol}/{series}", answers.units)
                if not np.array_equal(known, answers.units):
                    raise _odd(run, f"was asked other queries by '{protocol}'")
                if answers.groups:
                    groups[f"{protocol}/{series}"] = answers.groups
        for stage, protocol, series in cells:
            values = np.stack([run.judged[stage, protocol, series].values for run in runs])
            name = f"{VALUES}/{scenario}/{strategy}/{protocol}/{series}/stage-{stage + 1}"
            yield name, _small(values)
    yield from ((f"{UNITS}/{scenario}/{name}", found) for name, found in units.items())
    yield from ((f"{GROUPS}/{scenario}/{name}", np.array(found)) for name, found in groups.items())


def same_answers(first: FinishedRun, second: FinishedRun) -> bool:
    """Whether protocols found the same of two runs."""
    return first.judged.keys() == second.judged.keys() and all(
        np.array_equal(found.units, second.judged[cell].units)
        and np.array_equal(found.values, second.judged[cell].values, equal_nan=True)
        for cell, found in first.judged.items()
    )


def _odd(run: FinishedRun, problem: str) -> InputError:
    rest = "than further runs of the scenario"
    return InputError(Problem(str(run.folder), f"{problem} {rest}", "export it by itself"))


def _small(values: NDArray[np.float64]) -> NDArray[Any]:
    """Single precision where nothing is lost by it: ranks are whole or halves."""
    half = values.astype(np.float32)
    return half if np.array_equal(half.astype(np.float64), values, equal_nan=True) else values


def read_judged(
    archive: Archive,
    findings: Findings,
    task: Mapping[str, Any],
    run: tuple[str, str, int],
    stages: int,
) -> dict[tuple[int, str, str], Answers]:
    """What protocols found of one run; what does not fit or is missing goes to the findings.

    Args:
        archive: The export's, in which the seed is known to be.
        findings: Takes problems.
        task: What all runs of the scenario have in common.
        run: Names of scenario and strategy, and the seed.
        stages: Of the scenario; after the last one every protocol was scored.
    """
    found: dict[tuple[int, str, str], Answers] = {}
    kinds = kinds_of(task["scenario"])
    scenario, strategy, seed = run
    seeds = archive.read(f"seeds/{scenario}/{strategy}") if kinds else None
    if seeds is None:
        return found
    for protocol, kind in kinds.items():
        for name, series in series_of(kind).items():
            units_name = f"{UNITS}/{scenario}/{protocol}/{name}"
            groups = read_groups(archive, f"{GROUPS}/{scenario}/{protocol}/{name}", findings)
            for stage in range(stages):
                values_name = f"{VALUES}/{scenario}/{strategy}/{protocol}/{name}/stage-{stage + 1}"
                if values_name not in archive.headers and stage + 1 < stages:
                    continue
                units, values = archive.read(units_name), archive.read(values_name)
                if units is None or values is None:
                    continue
                check_units(units_name, units, findings)
                check_values(values_name, values, (len(seeds), series.rows, units.size), findings)
                if not findings.faulty & {units_name, values_name}:
                    mine = values[int(np.flatnonzero(seeds == seed)[0])].astype(np.float64)
                    found[stage, protocol, name] = Answers(units.astype(np.int64), mine, groups)
    return found


ROWS, DEFINITIONS, RANKS = "runs.csv", "definitions.json", "ranks.npz"
UNFINISHED = "export.unfinished"
"""The file that lies beside the others while they are written, and after if that was cut short."""
FORMAT = 1
REMEDY = "take the folder from where it was kept, or export the runs again into another one"

_Blank = BeforeValidator(lambda text: None if text == "" else text)
_Count = Annotated[int, Field(ge=0)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PairDefinition(records.PairRecord):
    """A pair; ``chance`` is recall at 1 of a random order, both directions averaged."""

    chance: Annotated[float, Field(ge=0, le=1)]


class ScenarioDefinition(records.Record):
    """What all runs of a scenario have in common; ``stages`` are names of what each adds."""

    scenario: records.ScenarioRecord
    data: dict[str, Any]
    pairs: dict[str, PairDefinition]
    stages: Annotated[tuple[tuple[str, ...], ...], Field(min_length=1)]


class StrategyDefinition(records.Record):
    """A strategy, and names of the scenarios in which it was defined like this."""

    scenarios: tuple[str, ...]
    definition: records.StrategyRecord


class Definitions(records.Record):
    """``definitions.json``."""

    format: Literal[1]
    scenarios: dict[str, ScenarioDefinition]
    strategies: tuple[StrategyDefinition, ...]


class RunRow(records.Record):
    """What is read of a row of ``runs.csv``; an empty cell is None."""

    model_config = ConfigDict(frozen=True, strict=False)

    scenario: str
    strategy: str
    seed: int
    memory_items: Annotated[_Count | None, _Blank]
    memory_bytes: _Count
    steps: Annotated[_Count | None, _Blank]
    seconds: _Seconds
    step_seconds: Annotated[_Seconds | None, _Blank]
    stability_gap: Annotated[_Finite | None, _Blank]


def cells(pairs: Mapping[str, PairFacts], stages: range) -> Iterator[tuple[int, str]]:
    """(0-based stage, pair) of all ranks of a run, in the order in which they are stored."""
    for stage in stages:
        yield from ((stage, name) for name, facts in sorted(pairs.items()) if facts.birth <= stage)


def read_exported(folder: Path) -> list[FinishedRun]:
    """Read exported runs, also while another process adds to them.

    Raises:
        InputError: If a file is missing or damaged, or files do not belong together.
    """
    before = _state(folder)
    try:
        return _read(folder)
    except InputError:
        if _state(folder) == before:
            raise
    return read_exported(folder)


def _state(folder: Path) -> list[tuple[int, int]]:
    """Changes whenever one of the files is replaced."""
    known = [folder / name for name in (ROWS, DEFINITIONS, RANKS) if (folder / name).is_file()]
    return [(found.st_ino, found.st_mtime_ns) for found in map(Path.stat, known)]


def _read(folder: Path) -> list[FinishedRun]:
    definitions = records.read(Definitions, folder / DEFINITIONS, REMEDY)
    rows = _rows(folder / ROWS)
    findings = Findings(str(folder / RANKS))
    try:
        with Archive(folder / RANKS, findings) as archive:
            reader = _Reader(folder, definitions, archive, findings)
            runs = [run for row in rows if (run := reader.run(row)) is not None]
            findings.refuse()
            if not (folder / UNFINISHED).exists():  # else rows came last, and are those of before
                reader.check_rest(rows)
        findings.refuse()
    except InputError as error:
        raise InputError(
            Problem(one.place, one.message, REMEDY) for one in error.problems
        ) from error
    return runs


def _rows(path: Path) -> list[RunRow]:
    rows: list[RunRow] = []
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            table = csv.DictReader(stream, restkey="", restval="?", strict=True)
            expected = tuple(table.fieldnames or ()) == HEADINGS
            for row in table if expected else ():
                rows.append(RunRow.model_validate(row))
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except ValidationError as error:
        problem = f"is damaged: row {len(rows) + 1}, {records.first_fault(error)}"
    except (csv.Error, UnicodeDecodeError) as error:
        problem = f"is damaged: {error}"
    else:
        if not (fault := _fault(rows, expected=expected)):
            return rows
        problem = f"is damaged: {fault}"
    raise InputError(Problem(str(path), problem, REMEDY))


def _fault(rows: list[RunRow], *, expected: bool) -> str:
    """What is wrong with a table of whole rows."""
    if not expected:
        return "its first line does not name the columns of an export"
    named = {(row.scenario, row.strategy, row.seed) for row in rows}
    if len(named) < len(rows):
        return "a run is there twice"
    return "" if rows else "it has no run"


class _Reader:
    """Puts runs together; what does not fit goes to the findings."""

    def __init__(
        self, folder: Path, definitions: Definitions, archive: Archive, findings: Findings
    ) -> None:
        self._folder = folder
        self._archive = archive
        self._findings = findings
        self._scenarios = definitions.scenarios
        self._strategies: dict[tuple[str, str], records.StrategyRecord] = {}
        self._read: dict[str, NDArray[Any] | None] = {}
        for name, scenario in definitions.scenarios.items():
            if scenario.scenario.name != name:
                raise self._ill_defined(f"calls '{scenario.scenario.name}' what is '{name}'")
        for each in definitions.strategies:
            for place in each.scenarios:
                if (place, each.definition.name) in self._strategies:
                    raise self._ill_defined(f"defines '{each.definition.name}' in '{place}' twice")
                self._strategies[place, each.definition.name] = each.definition

    def _ill_defined(self, problem: str) -> InputError:
        return InputError(Problem(str(self._folder / DEFINITIONS), problem))

    def run(self, row: RunRow) -> FinishedRun | None:
        """The run of a row; None, and a problem, if it lacks something."""
        known = self._scenarios.get(row.scenario)
        strategy = self._strategies.get((row.scenario, row.strategy))
        if known is None or strategy is None:
            problem = f"does not define '{row.strategy}' in '{row.scenario}', which {ROWS} names"
            raise self._ill_defined(problem)
        pairs = {
            name: PairFacts(facts.birth - 1, facts.role, facts.chance)
            for name, facts in sorted(known.pairs.items())
        }
        stages = ranked_stages(len(known.stages), joint=strategy.joint)
        ranked = self._ranked(row, list(cells(pairs, stages)))
        if ranked is None:
            return None
        key = (row.scenario, row.strategy, row.seed)
        task = known.model_dump(exclude={"stages": True, "pairs": {"__all__": {"chance"}}})
        return FinishedRun(
            folder=self._folder / row.scenario / row.strategy / f"seed-{row.seed}",
            task=task,
            protection=strategy.model_dump(),
            joint=strategy.joint,
            cumulative=strategy.cumulative,
            arrivals=known.stages,
            pairs=pairs,
            ranked=ranked,
            **row.model_dump(exclude={"stability_gap"}),
            stability_gap=math.nan if row.stability_gap is None else row.stability_gap,
            judged=read_judged(self._archive, self._findings, task, key, len(known.stages)),
        )

    def check_rest(self, rows: list[RunRow]) -> None:
        """Refuse what no row names: the next export would lose it."""
        seeds: dict[str, set[int]] = {}
        for row in rows:
            seeds.setdefault(f"{row.scenario}/{row.strategy}", set()).add(row.seed)
        defined = [*(f"{one}/{other}" for one, other in self._strategies), *self._scenarios]
        known = {*seeds, *(row.scenario for row in rows)}
        if rest := [name for name in defined if name not in known]:
            raise self._ill_defined(f"defines '{rest[0]}', of which {ROWS} has no run")
        for name in self._archive.headers:
            kind, *rest = name.split("/")
            place = "/".join(rest[:2])
            if kind in ("seeds", "ranks", VALUES) and place not in seeds:
                self._findings.about(name, f"has runs that {ROWS} does not name")
            elif kind == "seeds" and (found := self._column(name)) is not None:
                for seed in found[~np.isin(found, list(seeds[place]))][:1]:
                    self._findings.about(name, f"has seed {seed}, which {ROWS} does not name")

    def _ranked(
        self, row: RunRow, stored: list[tuple[int, str]]
    ) -> dict[tuple[int, str], Ranked] | None:
        rows = [self._rows_of(f"rows/{row.scenario}/{pair}") for _, pair in stored]
        known = [each for each in rows if each is not None]
        if len(known) < len(rows):
            return None
        values = self._values(row, [len(each) for each in known])
        if values is None:
            return None
        ends = np.cumsum([2 * len(each) for each in known])[:-1]
        parts = np.split(values, ends) if known else []
        return {
            cell: Ranked(each, part.reshape(2, -1))
            for cell, each, part in zip(stored, known, parts, strict=True)
        }

    def _rows_of(self, name: str) -> NDArray[np.int64] | None:
        rows = self._column(name)
        if rows is None or name in self._findings.faulty:
            return None
        if rows.ndim != 1 or rows.dtype.kind not in "iu" or not rows.size:
            self._findings.about(name, "is no list of dataset rows")
            return None
        found = rows.astype(np.int64)
        if (np.diff(found) <= 0).any():
            self._findings.about(name, "does not ascend")
            return None
        return found

    def _values(self, row: RunRow, galleries: list[int]) -> NDArray[np.float64] | None:
        """All ranks of a run, cell by cell and direction by direction.

        Args:
            row: The run's.
            galleries: Test items of each cell.
        """
        bounds = np.repeat(np.array(galleries, np.int64), 2 * np.array(galleries, np.int64))
        place = f"{row.scenario}/{row.strategy}"
        seeds, ranks = self._column(f"seeds/{place}"), self._column(f"ranks/{place}")
        name = f"ranks/{place}"
        if seeds is None or ranks is None or name in self._findings.faulty:
            return None
        if (
            seeds.ndim != 1
            or ranks.shape != (len(seeds), len(bounds))
            or ranks.dtype.kind not in "uf"
        ):
            self._findings.about(name, "is not one rank for each query of each seed")
            return None
        found = np.flatnonzero(seeds == row.seed)
        if len(found) != 1:
            self._findings.about(name, f"has not seed {row.seed} once, which {ROWS} names")
            return None
        values: NDArray[np.float64] = ranks[found[0]].astype(np.float64)
        values /= 2 if ranks.dtype.kind == "u" else 1
        if not are_ranks(values, bounds):
            self._findings.about(name, "holds what is no rank")
            return None
        return values

    def _column(self, name: str) -> NDArray[Any] | None:
        """A column of ``ranks.npz``, read once."""
        if name not in self._read:
            self._read[name] = None if name in self._findings.faulty else self._archive.read(name)
        return self._read[name]
