"""A protocol's comparison as rows for a table, as Markdown and as JSON."""

import json
import math
from dataclasses import asdict
from typing import Any

from continual_mm.metrics.answers import Measure
from continual_mm.runs.estimates import Estimate
from continual_mm.runs.protocols.comparison import ProtocolComparison, Row, Table, compare_protocol

__all__ = ["as_json", "as_markdown", "as_rows", "by_task", "compare_protocol", "title"]

_ABOUT = (
    "Recalls and accuracies in %, ranks counted from 1: value and 95 % interval over queries and "
    "seeds. The difference is that of the first column, on the same queries and seeds."
)
_UNDEFINED = "-"


def title(comparison: ProtocolComparison, table: Table) -> str:
    """What a table is called."""
    lacking = f", {table.missing} of them missing" if table.missing else ""
    asked = f"{table.queries} queries{lacking}"
    return f"{table.scenario}, {comparison.protocol}: {table.title}, {asked}"


def as_rows(comparison: ProtocolComparison, table: Table) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of one table."""
    measures = [f"{one.short} %" if one.share else one.short for one in table.measures]
    headings = [
        "stage",
        "strategy",
        "seeds",
        *measures,
        f"difference to {comparison.baseline}",
    ]
    return headings, [_cells(row, table.measures) for row in table.rows]


def by_task(
    comparison: ProtocolComparison, table: Table
) -> tuple[str, list[str], list[list[str]]] | None:
    """Title, headings and cells of a table's first measure task by task, after the last stage.

    None where queries are of no task.
    """
    last = max(row.stage for row in table.rows)
    rows = [row for row in table.rows if row.stage == last]
    tasks = dict.fromkeys(name for row in rows for name in row.groups)
    if not tasks:
        return None
    measure = table.measures[0]
    heading = f"{table.scenario}, {comparison.protocol}: {measure.name} in %, stage {last}"
    cells = [
        [name, *(_shown(row.groups.get(name), share=measure.share) for row in rows)]
        for name in tasks
    ]
    return heading, ["task", *(row.strategy for row in rows)], cells


def as_markdown(comparison: ProtocolComparison, *, tasks: bool = False) -> str:
    """A heading and a table for each scenario and series, with ``tasks`` by task, then notes."""
    lines: list[str] = []
    for table in comparison.tables:
        headings, rows = as_rows(comparison, table)
        rule = ["--:", ":--", *("--:" for _ in headings[2:])]
        lines += [f"## {title(comparison, table)}", "", _ABOUT, ""]
        lines += _piped(headings, rule, rows)
        if tasks and (found := by_task(comparison, table)) is not None:
            about, headings, rows = found
            lines += [
                f"### {about}",
                "",
                *_piped(headings, [":--", *("--:" for _ in headings[1:])], rows),
            ]
    lines += [f"- {note}" for note in comparison.notes]
    return "\n".join(lines).rstrip()


def _piped(headings: list[str], rule: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (headings, rule, *rows)] + [""]


def as_json(comparison: ProtocolComparison) -> str:
    """``{"protocol": ..., "rows": [...], "baseline": ..., "notes": [...]}``; null where undefined.

    A row has ``scenario``, ``stage``, ``strategy``, the number of ``seeds``, the number of
    ``queries``, how many of them are ``missing``, each measure by its name in ``scores.json`` as
    ``{"mean", "low", "high"}``, and the ``difference`` of the first as ``{"to", "mean", "low",
    "high"}``. Recalls are fractions. Where steps are looked for, ``tasks`` has the first measure of
    each task.
    """
    rows = [_record(comparison, table, row) for table in comparison.tables for row in table.rows]
    value = {
        "protocol": comparison.protocol,
        "rows": rows,
        "baseline": comparison.baseline,
        "notes": list(comparison.notes),
    }
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)


def _record(comparison: ProtocolComparison, table: Table, row: Row) -> dict[str, Any]:
    found = zip(table.measures, row.estimates, strict=True)
    tasks = {name: estimate and _ends(estimate) for name, estimate in row.groups.items()}
    return {
        "scenario": table.scenario,
        "series": table.title,
        "stage": row.stage,
        "strategy": row.strategy,
        "seeds": len(row.seeds),
        "queries": table.queries,
        "missing": table.missing,
        **{measure.name: estimate and _ends(estimate) for measure, estimate in found},
        "difference": row.difference and {"to": comparison.baseline, **_ends(row.difference)},
        **({"tasks": tasks} if tasks else {}),
    }


def _ends(estimate: Estimate) -> dict[str, float | None]:
    return {key: v if math.isfinite(v) else None for key, v in asdict(estimate).items()}


def _cells(row: Row, measures: tuple[Measure, ...]) -> list[str]:
    found = zip(measures, row.estimates, strict=True)
    return [
        str(row.stage),
        row.strategy,
        str(len(row.seeds)),
        *(_shown(estimate, share=measure.share) for measure, estimate in found),
        _shown(row.difference, share=measures[0].share, sign="+"),
    ]


def _shown(estimate: Estimate | None, *, share: bool, sign: str = "") -> str:
    """``53.1 [51.0, 55.2]``, in percent if it is a share."""
    if estimate is None:
        return _UNDEFINED
    by = 100 if share else 1
    ends = f"[{by * estimate.low:z.1f}, {by * estimate.high:z.1f}]"
    return f"{by * estimate.mean:{sign}z.1f} {ends}"
