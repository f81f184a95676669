"""A comparison of runs as LaTeX tables for a paper."""

from collections.abc import Iterator, Mapping, Sequence

from continual_mm.comparison.compare import Comparison, Row
from continual_mm.comparison.estimates import Estimate
from continual_mm.comparison.protocols import ProtocolComparison, ProtocolRow, Table
from continual_mm.comparison.tables import as_rows, by_task, protocol_rows, title

_ESCAPED = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
)
_LOWER_IS_BETTER = frozenset({"forgetting"})


def as_latex(comparison: Comparison) -> str:
    """A ``tabular`` per scenario, for the package ``booktabs``; without float and caption.

    Numbers are those of :func:`~continual_mm.comparison.tables.as_rows`. The best of each measure
    among the strategies that learn stage by stage is bold, with all equal to it as printed;
    joint and cumulative training, the upper bounds, stand apart in italics and never are. Costs are
    not judged.
    """
    return "\n\n".join(_table(comparison, scenario) for scenario in comparison.scenarios)


def _table(comparison: Comparison, scenario: str) -> str:
    headings, cells = as_rows(comparison, scenario)
    rows = comparison.reports[scenario].rows
    best = {column: _best(rows, name) for column, name in _measures(headings).items()}
    lines = []
    for row, texts in zip(rows, cells, strict=True):
        shown = [number(text) for text in texts]
        name = escaped(row.strategy)
        shown[0] = rf"\textit{{{name}}}" if row.bound else name
        for column, winners in best.items():
            if row.strategy in winners:
                shown[column] = bold(shown[column])
        lines.append(shown)
    about = f"{scenario}: R@1 on the test split, mean and 95 % interval"
    return tabular(about, "l", headings, lines)


def tabular(about: str, left: str, headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A ``tabular`` for the package ``booktabs``.

    Args:
        about: What it shows, as a comment.
        left: How the first columns are aligned; the others are to the right.
        headings: As they are; they are escaped here.
        lines: Cells in LaTeX.
    """
    aligned = left + "r" * (len(headings) - len(left))
    return "\n".join(
        [
            f"% {about}",
            rf"\begin{{tabular}}{{{aligned}}}",
            r"\toprule",
            _line([escaped(heading) for heading in headings]),
            r"\midrule",
            *map(_line, lines),
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def _measures(headings: Sequence[str]) -> Mapping[int, str]:
    """Column -> the measure in it."""
    names = {
        "harmonic mean %": "harmonic_mean",
        "old %": "old_pairs",
        "new %": "new_pairs",
        "emergent %": "emergent_pairs",
        "forgetting": "forgetting",
        "retention": "retention",
    }
    found = {column: names[text] for column, text in enumerate(headings) if text in names}
    difference = next(c for c, text in enumerate(headings) if text.startswith("difference"))
    return {**found, difference: "difference"}


def _best(rows: Sequence[Row], measure: str) -> frozenset[str]:
    """The strategies that are best as printed; none where there is nothing to be better than."""
    sign = -1 if measure in _LOWER_IS_BETTER else 1
    found = {row.strategy: _estimate(row, measure) for row in rows if not row.bound}
    printed = {name: sign * round(100 * e.mean, 1) for name, e in found.items() if e is not None}
    if len(printed) < 2:
        return frozenset()
    return frozenset(name for name, value in printed.items() if value == max(printed.values()))


def _estimate(row: Row, measure: str) -> Estimate | None:
    estimate: Estimate | None
    estimate = row.difference if measure == "difference" else getattr(row.headline, measure)
    return estimate


def escaped(text: str) -> str:
    r"""Text as it is, in LaTeX.

    >>> print(escaped("replay_ewc 50 %"))
    replay\_ewc 50 \%
    """
    return text.translate(_ESCAPED)


def bold(cell: str) -> str:
    """A cell that stands out."""
    return rf"\textbf{{{cell}}}"


def number(text: str) -> str:
    r"""A printed number with real minus signs; a hyphen alone is a dash.

    >>> print(number("-4.2 [-8.2, -0.4]"), number("33.5±3.6"), number("-"))
    $-$4.2 [$-$8.2, $-$0.4] 33.5$\pm$3.6 --
    """
    return "--" if text == "-" else text.replace("-", "$-$").replace("±", r"$\pm$")


def _line(cells: Sequence[str]) -> str:
    return rf"{' & '.join(cells)} \\"


_BEFORE = 3
"""Columns before the measures: stage, strategy, seeds."""


def protocol_latex(comparison: ProtocolComparison, *, tasks: bool = False) -> str:
    """A ``tabular`` per scenario and series, for the package ``booktabs``.

    Numbers are those of :func:`~continual_mm.comparison.tables.as_rows`. The best of each
    measure after each stage is bold, with all that are equal to it as printed.

    Args:
        comparison: What is shown.
        tasks: Whether tables task by task follow those of steps.
    """
    parts = []
    for table in comparison.tables:
        parts.append(_protocol_table(comparison, table))
        if tasks and (found := by_task(comparison, table)) is not None:
            about, headings, cells = found
            lines = [[escaped(name), *map(number, texts)] for name, *texts in cells]
            parts.append(tabular(f"{about}: value and 95 % interval", "l", headings, lines))
    return "\n\n".join(parts)


def _protocol_table(comparison: ProtocolComparison, table: Table) -> str:
    headings, cells = protocol_rows(comparison, table)
    best = set(_protocol_best(table))
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


def _protocol_best(table: Table) -> Iterator[tuple[int, str, int]]:
    """Stage, strategy and measure of what is best as printed; of one row alone nothing is."""
    for stage in dict.fromkeys(row.stage for row in table.rows):
        rows = [row for row in table.rows if row.stage == stage]
        for column in range(len(table.measures)):
            found = {row.strategy: _printed(table, row, column) for row in rows}
            known = {name: value for name, value in found.items() if value is not None}
            if len(known) > 1:
                most = max(known.values())
                yield from ((stage, name, column) for name, v in known.items() if v == most)


def _printed(table: Table, row: ProtocolRow, column: int) -> float | None:
    """A value as it is printed; ranks, of which the lowest is best, below 0."""
    estimate = row.estimates[column]
    if estimate is None:
        return None
    return (
        round(100 * estimate.mean, 1) if table.measures[column].share else -round(estimate.mean, 1)
    )
