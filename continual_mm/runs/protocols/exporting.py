"""What protocols found, in the small folder of an export: arrays for its archive, and back."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.archive import Archive
from continual_mm.data.findings import Findings
from continual_mm.metrics.answers import Answers
from continual_mm.runs.finished import FinishedRun
from continual_mm.runs.protocols.reading import (
    check_units,
    check_values,
    kinds_of,
    read_groups,
    series_of,
)

UNITS, VALUES, GROUPS = "protocol-units", "protocol-values", "protocol-groups"
"""How the names of arrays begin: queries of a scenario, values of a strategy's seeds, and names of
groups of queries."""


def judged_arrays(
    scenario: str, strategies: Mapping[str, Sequence[FinishedRun]]
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Name and array of everything that protocols found in a scenario.

    Raises:
        RefusedError: If runs were asked different queries, or after different stages.
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


def _odd(run: FinishedRun, problem: str) -> RefusedError:
    rest = "than further runs of the scenario"
    return RefusedError(Complaint(str(run.folder), f"{problem} {rest}", "export it by itself"))


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
        findings: Takes complaints.
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
