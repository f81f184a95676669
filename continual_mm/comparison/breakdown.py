"""Scores pair by pair, stage by stage and direction by direction, as tables of text."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

from continual_mm.comparison.compare import Comparison, Row, ScenarioReport
from continual_mm.comparison.estimates import METRICS, Estimate, Metric
from continual_mm.comparison.tables import Cell, Line, Table, decimals
from continual_mm.definitions.modality import Pair

_ABOUT = (
    "{} on the {} split{}: mean and 95 % interval over queries and seeds. Bounds, which train past "
    "items again, are among the others."
)
_Found = tuple[tuple[str, ...], int, Row, tuple[Estimate | None, ...]]
"""Names of a line, its group, its strategy, and what it has."""


def tables_by(comparison: Comparison, what: str) -> list[Table]:
    """A table for each scenario, with a line for each strategy and ``what``, one of :data:`BY`."""
    return [
        BY[what](name, report, METRICS[comparison.metric])
        for name, report in comparison.reports.items()
    ]


def _by_pair(scenario: str, report: ScenarioReport, metric: Metric) -> Table:
    lines = [
        ((pair, facts.role), group, row, (row.recalls[pair][-1],))
        for group, (pair, facts) in enumerate(report.pairs.items())
        for row in report.rows
    ]
    headings = ("pair", "role", "strategy", "seeds", _named(metric))
    return _table(scenario, report, metric, headings, lines, "after the last stage")


def _by_direction(scenario: str, report: ScenarioReport, metric: Metric) -> Table:
    ways = [(pair, n, way) for pair in report.pairs for n, way in enumerate(_ways(pair))]
    lines = [
        (way, group, row, (row.directions[pair][n],))
        for group, (pair, n, way) in enumerate(ways)
        for row in report.rows
    ]
    headings = ("query", "answers", "strategy", "seeds", _named(metric))
    return _table(scenario, report, metric, headings, lines, "after the last stage")


def _by_stage(scenario: str, report: ScenarioReport, metric: Metric) -> Table:
    stages = [
        f"stage {number} (+ {', '.join(added)})"
        for number, added in enumerate(report.arrivals, start=1)
    ]
    lines = [
        ((pair,), group, row, row.recalls[pair])
        for group, pair in enumerate(report.pairs)
        for row in report.rows
    ]
    headings = ("pair", "strategy", "seeds", *stages)
    return _table(scenario, report, metric, headings, lines, "after each stage")


BY: Mapping[str, Callable[[str, ScenarioReport, Metric], Table]] = MappingProxyType(
    {"pair": _by_pair, "stage": _by_stage, "direction": _by_direction}
)
"""What scores can be laid out by."""


def _table(
    scenario: str,
    report: ScenarioReport,
    metric: Metric,
    headings: tuple[str, ...],
    found: Sequence[_Found],
    when: str,
) -> Table:
    names = len(found[0][0]) + 1 if found else 2
    unit = " in %" if metric.unit else " (from 1)"
    name = f"{scenario}: {metric.heading}{unit} {when}, {report.split} items"
    about = _ABOUT.format(metric.heading, report.split, unit)
    seeds = headings.index("seeds")
    return Table(
        name=name,
        title=name,
        caption=name,
        about=about,
        alignment="l" * names + "r" * (len(headings) - names),
        headings=headings,
        lines=tuple(_lines(found, metric)),
        important=(*(n for n in range(len(headings)) if n != seeds), seeds),
    )


def _lines(found: Sequence[_Found], metric: Metric) -> Iterator[Line]:
    columns = list(zip(*(estimates for *_, estimates in found), strict=True))
    places = [decimals(column, metric.scale) for column in columns]
    for names, group, row, estimates in found:
        cells = [
            Cell(each, digits, metric.scale) for each, digits in zip(estimates, places, strict=True)
        ]
        values = {
            len(names) + 2 + n: -cell.printed if metric.median else cell.printed
            for n, cell in enumerate(cells)
            if cell.estimate is not None
        }
        shown = (*names, row.strategy, str(len(row.seeds)), *(cell.range() for cell in cells))
        yield Line(shown, values, None if row.bound else group)


def _ways(pair: str) -> tuple[tuple[str, str], ...]:
    return tuple(Pair.parse(pair).directions)


def _named(metric: Metric) -> str:
    return f"{metric.heading}{metric.unit}"
