"""A protocol's comparison as LaTeX tables for a paper."""

from collections.abc import Iterator

from continual_mm.runs.latex import bold, escaped, number, tabular
from continual_mm.runs.protocols.comparison import ProtocolComparison, Row, Table
from continual_mm.runs.protocols.report import as_rows, by_task, title

_BEFORE = 3
"""Columns before the measures: stage, strategy, seeds."""


def as_latex(comparison: ProtocolComparison, *, tasks: bool = False) -> str:
    """A ``tabular`` per scenario and series, for the package ``booktabs``.

    Numbers are those of :func:`~continual_mm.runs.protocols.report.as_rows`. The best of each
    measure after each stage is bold, with all that are equal to it as printed.

    Args:
        comparison: What is shown.
        tasks: Whether tables task by task follow those of steps.
    """
    parts = []
    for table in comparison.tables:
        parts.append(_table(comparison, table))
        if tasks and (found := by_task(comparison, table)) is not None:
            about, headings, cells = found
            lines = [[escaped(name), *map(number, texts)] for name, *texts in cells]
            parts.append(tabular(f"{about}: value and 95 % interval", "l", headings, lines))
    return "\n\n".join(parts)


def _table(comparison: ProtocolComparison, table: Table) -> str:
    headings, cells = as_rows(comparison, table)
    best = set(_best(table))
    lines = []
    for row, texts in zip(table.rows, cells, strict=True):
        shown = [number(text) for text in texts]
        shown[1] = escaped(row.strategy)
        for column in range(len(table.measures)):
            if (row.stage, row.strategy, column) in best:
                shown[_BEFORE + column] = bold(shown[_BEFORE + column])
        lines.append(shown)
    about = f"{title(comparison, table)}: value and 95 % interval"
    return tabular(about, "rl", headings, lines)


def _best(table: Table) -> Iterator[tuple[int, str, int]]:
    """Stage, strategy and measure of what is best as printed; of one row alone nothing is."""
    for stage in dict.fromkeys(row.stage for row in table.rows):
        rows = [row for row in table.rows if row.stage == stage]
        for column in range(len(table.measures)):
            found = {row.strategy: _printed(table, row, column) for row in rows}
            known = {name: value for name, value in found.items() if value is not None}
            if len(known) > 1:
                most = max(known.values())
                yield from ((stage, name, column) for name, v in known.items() if v == most)


def _printed(table: Table, row: Row, column: int) -> float | None:
    """A value as it is printed; ranks, of which the lowest is best, below 0."""
    estimate = row.estimates[column]
    if estimate is None:
        return None
    return (
        round(100 * estimate.mean, 1) if table.measures[column].share else -round(estimate.mean, 1)
    )
