"""Answers to protocols, read back from the files of a run and checked."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from continual_mm.data.archive import Archive
from continual_mm.data.findings import Findings
from continual_mm.metrics.answers import SERIES, Answers, Series, counted
from continual_mm.protocol_definitions import ProtocolKind
from continual_mm.runs import records


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
    """One series at the end of one stage; None, and a complaint, if it cannot be what a run wrote.

    Args:
        archive: The file of the stage.
        place: What stands before ``/units`` and ``/values``.
        series: What is read.
        findings: Takes complaints.
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
