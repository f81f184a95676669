"""A comparison of runs as rows for a table, as Markdown and as JSON."""

import json
import math
from dataclasses import asdict
from typing import Any

from continual_mm.comparison.compare import Comparison, Row
from continual_mm.comparison.estimates import Estimate
from continual_mm.comparison.protocols import (
    ProtocolComparison,
    ProtocolRow,
    Table,
)
from continual_mm.metrics.answers import Measure

_ABOUT = (
    "R@1 in % on the test split, mean of both directions: mean and 95 % interval over queries and "
    "seeds, `±` half its width. Forgetting and differences are in percentage points, retention in "
    "%; the difference is that of the harmonic means, on the same queries and seeds."
)
_UNDEFINED = "-"
_GAP = "stability gap"
_ABOUT_GAP = (
    " The stability gap is what old pairs lost inside the last stage, at their worst; its interval "
    "is over seeds only."
)


def as_rows(comparison: Comparison, scenario: str) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of one scenario's table, which fits into 140 columns without the gap.

    Recalls and retention are in percent, forgetting and differences in percentage points. Where
    there is room for one number only, it is half the interval's width. The stability gap has a
    column where a run was evaluated inside its last stage, and no interval for a single seed.
    """
    strategies = comparison.reports[scenario].rows
    gap = any(row.headline.stability_gap for row in strategies)
    headings = [
        "strategy",
        "seeds",
        "harmonic mean %",
        "old %",
        "new %",
        "emergent %",
        "forgetting",
        "retention",
        *([_GAP] if gap else []),
        f"difference to {comparison.baseline}",
        "memory",
        "seconds",
    ]
    return headings, [_cells(row, gap=gap) for row in strategies]


def as_markdown(comparison: Comparison) -> str:
    """A heading and a table per scenario, then the notes."""
    lines: list[str] = []
    for scenario in comparison.scenarios:
        headings, rows = as_rows(comparison, scenario)
        rule = [":--", *("--:" for _ in headings[1:])]
        about = _ABOUT + (_ABOUT_GAP if _GAP in headings else "")
        lines += [f"## {scenario}", "", about, ""]
        lines += [_line(headings), _line(rule), *map(_line, rows), ""]
    lines += [f"- {note}" for note in comparison.notes]
    return "\n".join(lines).rstrip()


def as_json(comparison: Comparison) -> str:
    """``{"rows": [...], "baseline": ..., "notes": [...]}``; fractions, null where undefined.

    A row has ``scenario``, ``strategy``, the number of ``seeds``, the measures of
    :class:`~continual_mm.comparison.compare.Headline` as ``{"mean", "low", "high"}``, the
    ``difference`` as ``{"to", "mean", "low", "high"}``, ``memory_bytes`` and ``seconds``. The
    interval of ``stability_gap`` is over seeds only, and its ends are the mean for a single one.
    """
    rows = [
        _record(scenario, row, comparison.baseline)
        for scenario, report in comparison.reports.items()
        for row in report.rows
    ]
    value = {"rows": rows, "baseline": comparison.baseline, "notes": list(comparison.notes)}
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)


def _record(scenario: str, row: Row, baseline: str) -> dict[str, Any]:
    difference = row.difference and {"to": baseline, **asdict(row.difference)}
    return {
        "scenario": scenario,
        "strategy": row.strategy,
        "seeds": len(row.seeds),
        **asdict(row.headline),
        "difference": difference,
        "memory_bytes": row.memory_bytes,
        "seconds": row.seconds,
    }


def _cells(row: Row, *, gap: bool) -> list[str]:
    headline = row.headline
    fall = _half(headline.stability_gap)
    return [
        row.strategy,
        str(len(row.seeds)),
        _range(headline.harmonic_mean),
        _half(headline.old_pairs),
        _half(headline.new_pairs),
        _half(headline.emergent_pairs),
        _half(headline.forgetting),
        _half(headline.retention),
        *([fall.partition("±")[0] if len(row.seeds) == 1 else fall] if gap else []),
        _range(row.difference, sign="+"),
        _bytes(row.memory_bytes),
        f"{row.seconds:.{0 if row.seconds >= 100 else 1}f}",
    ]


def _range(estimate: Estimate | None, *, sign: str = "") -> str:
    """``53.1 [51.0, 55.2]``."""
    if estimate is None:
        return _UNDEFINED
    mean, low, high = 100 * estimate.mean, 100 * estimate.low, 100 * estimate.high
    return f"{mean:{sign}z.1f} [{low:z.1f}, {high:z.1f}]"


def _half(estimate: Estimate | None) -> str:
    """``53.1±2.1``, half the interval's width."""
    if estimate is None:
        return _UNDEFINED
    return f"{100 * estimate.mean:z.1f}±{50 * (estimate.high - estimate.low):.1f}"


def _bytes(count: float) -> str:
    """``1.2 MB``, in powers of a thousand.

    >>> _bytes(0), _bytes(999), _bytes(1234567)
    ('0 B', '999 B', '1.2 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


_PROTOCOL_ABOUT = (
    "Recalls and accuracies in %, ranks counted from 1: value and 95 % interval over queries and "
    "seeds. The difference is that of the first column, on the same queries and seeds."
)


def title(comparison: ProtocolComparison, table: Table) -> str:
    """What a table is called."""
    lacking = f", {table.missing} of them missing" if table.missing else ""
    asked = f"{table.queries} queries{lacking}"
    return f"{table.scenario}, {comparison.protocol}: {table.title}, {asked}"


def protocol_rows(
    comparison: ProtocolComparison, table: Table
) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of one table."""
    measures = [f"{one.short} %" if one.share else one.short for one in table.measures]
    headings = [
        "stage",
        "strategy",
        "seeds",
        *measures,
        f"difference to {comparison.baseline}",
    ]
    return headings, [_protocol_cells(row, table.measures) for row in table.rows]


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


def protocol_markdown(comparison: ProtocolComparison, *, tasks: bool = False) -> str:
    """A heading and a table for each scenario and series, with ``tasks`` by task, then notes."""
    lines: list[str] = []
    for table in comparison.tables:
        headings, rows = protocol_rows(comparison, table)
        rule = ["--:", ":--", *("--:" for _ in headings[2:])]
        lines += [f"## {title(comparison, table)}", "", _PROTOCOL_ABOUT, ""]
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


def protocol_json(comparison: ProtocolComparison) -> str:
    """``{"protocol": ..., "rows": [...], "baseline": ..., "notes": [...]}``; null where undefined.

    A row has ``scenario``, ``stage``, ``strategy``, the number of ``seeds``, the number of
    ``queries``, how many of them are ``missing``, each measure by its name in ``scores.json`` as
    ``{"mean", "low", "high"}``, and the ``difference`` of the first as ``{"to", "mean", "low",
    "high"}``. Recalls are fractions. Where steps are looked for, ``tasks`` has the first measure of
    each task.
    """
    rows = [
        _protocol_record(comparison, table, row)
        for table in comparison.tables
        for row in table.rows
    ]
    value = {
        "protocol": comparison.protocol,
        "rows": rows,
        "baseline": comparison.baseline,
        "notes": list(comparison.notes),
    }
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)


def _protocol_record(
    comparison: ProtocolComparison, table: Table, row: ProtocolRow
) -> dict[str, Any]:
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


def _protocol_cells(row: ProtocolRow, measures: tuple[Measure, ...]) -> list[str]:
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
