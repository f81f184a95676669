"""A comparison of runs as rows for a table, as Markdown and as JSON."""

import json
from dataclasses import asdict
from typing import Any

from continual_mm.runs.comparison import Comparison, Row, compare
from continual_mm.runs.estimates import Estimate

__all__ = ["as_json", "as_markdown", "as_rows", "compare"]

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
    :class:`~continual_mm.runs.comparison.Headline` as ``{"mean", "low", "high"}``, the
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
