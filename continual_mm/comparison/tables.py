"""Comparisons as tables of text, which all formats share, as Markdown and as JSON."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from continual_mm.comparison.compare import Comparison, Row
from continual_mm.comparison.estimates import ABOVE_CHANCE, METRICS, Estimate, Metric
from continual_mm.comparison.protocols import ProtocolComparison, SeriesReport
from continual_mm.comparison.tidy import rows_by
from continual_mm.runs.reporter import percent

_ABOUT = (
    "{} in % on the {} split, mean of both directions: mean and 95 % interval over queries and "
    "seeds, `±` half its width. Forgetting and differences are in percentage points, retention in "
    "%; the difference is that of the harmonic means, on the same queries and seeds."
)
_ABOUT_RANKS = (
    "{} on the {} split, counted from 1, mean of both directions: mean and 95 % interval over "
    "queries and seeds, `±` half its width; low is good. Forgetting is how many places old pairs "
    "fell; the difference is that of the mean of old and new pairs, on the same queries and seeds."
)
_ABOUT_CHANCE = (
    " In a random order old pairs have {} %; there is no retention where the first score of "
    f"one is not above chance by {ABOVE_CHANCE:g} standard errors over items."
)
_ABOUT_GAP = (
    " The stability gap is what old pairs lost inside the last stage, at their worst; its interval "
    "is over seeds only."
)
_ABOUT_PROTOCOL = (
    "Recalls and accuracies in %, ranks counted from 1: value and 95 % interval over queries and "
    "seeds. The difference is that of the first column, on the same queries and seeds."
)
_ABOUT_INDEXES = (
    "R@10 in % of queries whose partners in all other modalities are among the first 10 of one "
    "index, mean over query modalities; R@1 in % of old pairs in an index that was filled before "
    "the last stage, and beside it in one that was filled after it. Means; intervals of the first "
    "two are over seeds only. The size of a vector is how many numbers an item has, in several "
    "vectors where pairs have their own."
)
UNDEFINED = "-"
NAME = 24  # characters that a name has in a line where a table is narrow
GAP = 2  # between two columns
_MEASURES = {
    "harmonic mean": "harmonic_mean",
    "old": "old_pairs",
    "new": "new_pairs",
    "emergent": "emergent_pairs",
    "forgetting": "forgetting",
    "retention": "retention",
}
"""Heading -> attribute of a headline."""
_SCORES = tuple(_MEASURES)[:4]  # those that have the unit of the metric
_OF_MEANS = ("harmonic mean", "retention")  # what there is none of for medians
_MOST_IMPORTANT = ("strategy", "harmonic mean", "old", "new", "forgetting")


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a table: cells, and column -> value as printed, negative where the lowest is best.

    Values are compared with those of the same group; group None is an upper bound, which is
    compared with none.
    """

    cells: tuple[str, ...]
    values: Mapping[int, float] = field(default_factory=dict)
    group: int | None = 0


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text.

    ``name`` says what it shows in Markdown, ``title`` on a terminal, ``caption`` in LaTeX;
    ``about`` how to read the numbers, empty for a table that belongs to the one before it.
    ``alignment`` has a letter for each column: ``l`` for names, ``r`` for numbers. ``important``
    are columns that are shown rather than others where not all have room, the most important first.
    """

    name: str
    title: str
    caption: str
    about: str
    alignment: str
    headings: tuple[str, ...]
    lines: tuple[Line, ...]
    important: tuple[int, ...] = ()

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The cells of all lines."""
        return [line.cells for line in self.lines]


def scenario_tables(comparison: Comparison) -> list[Table]:
    """A table for each scenario, which fits into 140 columns without the stability gap.

    Where there is room for one number only, it is half the interval's width. The stability gap has
    a column where a run was evaluated inside its last stage, and no interval for a single seed.
    """
    return [_scenario_table(comparison, scenario) for scenario in comparison.reports]


def _scenario_table(comparison: Comparison, scenario: str) -> Table:
    report, metric = comparison.reports[scenario], METRICS[comparison.metric]
    rows = report.rows
    gap = comparison.metric == "recall@1" and any(row.headline.stability_gap for row in rows)
    about = (_ABOUT_RANKS if metric.median else _ABOUT).format(metric.heading, report.split)
    about += _ABOUT_GAP if gap else ""
    chance = ""
    if report.chance is not None:
        shown = percent(report.chance) if not metric.median else f"{report.chance:.1f}"
        about += "" if metric.median else _ABOUT_CHANCE.format(shown)
        chance = f", chance of old pairs {shown}"
    measures = _measures(metric)
    plain = ("strategy", "seeds", *measures, *(["stability gap"] if gap else []))
    plain = (*plain, f"difference to {comparison.baseline}", "memory", "seconds")
    first = [plain.index(name) for name in _MOST_IMPORTANT if name in plain]
    last = [plain.index(name) for name in ("seeds", "memory", "seconds")]
    rest = [place for place in range(len(plain)) if place not in (*first, *last)]
    unit = " in %" if metric.unit else ""
    return Table(
        name=scenario,
        title=f"{scenario}: {metric.heading}{unit} on {report.split} items, mean and 95 % interval"
        f"{chance}",
        caption=f"{scenario}: {metric.heading} on the {report.split} split, mean and 95 % interval",
        about=about,
        alignment="l" + "r" * (len(plain) - 1),
        headings=tuple(_heading(name, metric, report.few) for name in plain),
        lines=tuple(_scenario_lines(rows, metric, gap=gap)),
        important=(*first, *rest, *last),
    )


def _measures(metric: Metric) -> list[str]:
    """Headings of the measures that there are of a metric."""
    return [name for name in _MEASURES if not (metric.median and name in _OF_MEANS)]


def _heading(name: str, metric: Metric, few: Sequence[str]) -> str:
    """With the unit, and a star behind a role with a pair of a handful of items."""
    return f"{name}{metric.unit if name in _SCORES else ''}{'*' if name in few else ''}"


def _scenario_lines(rows: Sequence[Row], metric: Metric, *, gap: bool) -> Iterator[Line]:
    names = [_MEASURES[heading] for heading in _measures(metric)]
    names += ["stability_gap"] if gap else []
    columns = [[getattr(row.headline, name) for row in rows] for name in names]
    columns.append([row.difference for row in rows])
    places = [decimals(column, metric.scale) for column in columns]
    scales = [metric.scale] * len(columns)
    for row, *found in zip(rows, *columns, strict=True):
        *measured, difference = map(Cell, found, places, scales)
        shown = [
            cell.range() if name == "harmonic_mean" else cell.half()
            for name, cell in zip(names, measured, strict=True)
        ]
        if gap and len(row.seeds) == 1:  # its interval is over seeds
            shown[-1] = shown[-1].partition("±")[0]
        cells = (
            row.strategy,
            str(len(row.seeds)),
            *shown,
            difference.range("+"),
            _bytes(row.memory_bytes),
            f"{row.seconds:.{0 if row.seconds >= 100 else 1}f}",
        )
        known = [*zip(names, measured, strict=True), ("difference", difference)]
        values = {
            column: -cell.printed if metric.median or name == "forgetting" else cell.printed
            for column, (name, cell) in enumerate(known, start=2)
            if cell.estimate is not None and name != "stability_gap"
        }
        yield Line(cells, values, None if row.bound else 0)


def index_tables(comparison: Comparison) -> list[Table]:
    """A table for each scenario with scores of one index for all modalities, or of an earlier one.

    Runs of earlier versions have none.
    """
    return [
        _index_table(scenario, report.rows)
        for scenario, report in comparison.reports.items()
        if any(row.headline.mixed_recall or row.headline.earlier_recall for row in report.rows)
    ]


def _index_table(scenario: str, rows: Sequence[Row]) -> Table:
    what = ("mixed_recall", "earlier_recall")
    headings = ("strategy", "seeds", "mixed index, R@10 %", "earlier index, R@1 %", "old %", "size")
    lines = []
    columns = [[getattr(row.headline, name) for row in rows] for name in (*what, "old_pairs")]
    places = [decimals(column) for column in columns]
    for row, *found in zip(rows, *columns, strict=True):
        cells = [Cell(each, digits) for each, digits in zip(found, places, strict=True)]
        shown = [cell.half() for cell in cells]
        if len(row.seeds) == 1:  # these intervals are over seeds
            shown[:2] = [each.partition("±")[0] for each in shown[:2]]
        values = {
            place: cell.printed for place, cell in enumerate(cells, 2) if cell.estimate is not None
        }
        size = UNDEFINED if row.vector_size is None else f"{row.vector_size:.0f}"
        lines.append(
            Line(
                (row.strategy, str(len(row.seeds)), *shown, size), values, None if row.bound else 0
            )
        )
    title = f"{scenario}: one index for all modalities, and an earlier one"
    return Table(scenario, title, title, _ABOUT_INDEXES, "lrrrrr", headings, tuple(lines))


def fitted(table: Table, width: int) -> tuple[Table, tuple[str, ...]]:
    """The columns of a table that have room in so many characters, and headings of the others.

    The first column may be broken between words; all others are whole or not there.
    """
    order = table.important or tuple(range(len(table.headings)))
    widths = [max(map(len, column)) for column in zip(table.headings, *table.rows, strict=True)]
    words = [word for cells in (table.headings, *table.rows) for word in cells[0].split()]
    widths[0] = min(widths[0], max(NAME, *map(len, words)))
    chosen: list[int] = []
    for column in order:
        if sum(widths[each] + GAP for each in (*chosen, column)) - GAP <= width or not chosen:
            chosen.append(column)
    kept = sorted(chosen)
    lines = [Line(tuple(line.cells[each] for each in kept), {}, line.group) for line in table.lines]
    left = tuple(name for n, name in enumerate(table.headings) if n not in chosen)
    whole = replace(
        table,
        alignment="".join(table.alignment[each] for each in kept),
        headings=tuple(table.headings[each] for each in kept),
        lines=tuple(lines),
        important=(),
    )
    return (whole, left) if left else (table, ())


def protocol_tables(comparison: ProtocolComparison, *, tasks: bool = False) -> list[Table]:
    """A table for each scenario and series; with ``tasks`` also task by task."""
    tables = []
    for report in comparison.reports:
        tables.append(_series_table(comparison, report))
        if tasks:
            tables += _task_tables(comparison, report)
    return tables


def _series_table(comparison: ProtocolComparison, report: SeriesReport) -> Table:
    lacking = f", {report.missing} of them missing" if report.missing else ""
    asked = f"{report.title}, {report.queries} queries{lacking}"
    name = f"{report.scenario}, {comparison.protocol}: {asked}"
    measures = [f"{one.short} %" if one.share else one.short for one in report.measures]
    headings = ("stage", "strategy", "seeds", *measures, f"difference to {comparison.baseline}")
    lines = tuple(_protocol_lines(report))
    alignment = "rl" + "r" * (len(headings) - 2)
    caption = f"{name}: value and 95 % interval"
    return Table(name, name, caption, _ABOUT_PROTOCOL, alignment, headings, lines)


def _protocol_lines(report: SeriesReport) -> Iterator[Line]:
    shares = [measure.share for measure in report.measures]
    columns = [*zip(*(row.estimates for row in report.rows), strict=True)]
    columns.append(tuple(row.difference for row in report.rows))
    scales = [100 if share else 1 for share in (*shares, shares[0])]
    places = [decimals(each, scale) for each, scale in zip(columns, scales, strict=True)]
    for row, *found in zip(report.rows, *columns, strict=True):
        *measured, difference = map(Cell, found, places, scales)
        values = {
            column: cell.printed if share else -cell.printed
            for column, (cell, share) in enumerate(zip(measured, shares, strict=True), start=3)
            if cell.estimate is not None
        }
        cells = (
            str(row.stage),
            row.strategy,
            str(len(row.seeds)),
            *(cell.range() for cell in measured),
            difference.range("+"),
        )
        yield Line(cells, values, row.stage)


def _task_tables(comparison: ProtocolComparison, report: SeriesReport) -> list[Table]:
    """The first measure task by task, after the last stage; none where queries are of no task."""
    last = max(row.stage for row in report.rows)
    rows = [row for row in report.rows if row.stage == last]
    tasks = dict.fromkeys(name for row in rows for name in row.groups)
    if not tasks:
        return []
    measure = report.measures[0]
    name = f"{report.scenario}, {comparison.protocol}: {measure.name} in %, stage {last}"
    headings = ("task", *(row.strategy for row in rows))
    scale = 100 if measure.share else 1
    digits = decimals([each for row in rows for each in row.groups.values()], scale)
    lines = tuple(
        Line((task, *(Cell(row.groups.get(task), digits, scale).range() for row in rows)))
        for task in tasks
    )
    caption = f"{name}: value and 95 % interval"
    return [Table(name, name, caption, "", "l" + "r" * len(rows), headings, lines)]


def as_markdown(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """A heading and a table each, then the notes."""
    lines: list[str] = []
    for table in tables:
        about = [f"## {table.name}", "", table.about] if table.about else [f"### {table.name}"]
        lines += [*about, ""]
        rule = [":--" if letter == "l" else "--:" for letter in table.alignment]
        lines += [_piped(cells) for cells in (table.headings, rule, *table.rows)]
        lines.append("")
    lines += [f"- {note}" for note in notes]
    return "\n".join(lines).rstrip()


def _piped(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def as_json(comparison: Comparison, *others: Comparison, by: str = "strategy") -> str:
    """``{"rows": [...], "metric": ..., "baseline": ..., "notes": [...]}``; null where undefined.

    With several comparisons ``metrics`` has their names, and rows have a ``metric``; ``by`` pair,
    stage or direction rows are those of :func:`~continual_mm.comparison.tidy.rows_by`. Else a
    row has ``scenario``, ``strategy``, the number of ``seeds``, the measures of
    :class:`~continual_mm.comparison.compare.Headline` as ``{"mean", "low", "high"}``, the
    ``difference`` as ``{"to", "mean", "low", "high"}``, the score of old pairs in a random order as
    ``chance``, ``memory_bytes``, ``seconds`` and ``vector_size``. All but the last three are
    fractions. The intervals of ``stability_gap``, ``mixed_recall`` and ``earlier_recall`` are over
    seeds only, and their ends are the mean for a single one.
    """
    every = (comparison, *others)
    rows = [row for each in every for row in _json_rows(each, by)]
    if others and by == "strategy":
        names = [each.metric for each in every for one in each.reports.values() for _ in one.rows]
        rows = [{"metric": name, **row} for name, row in zip(names, rows, strict=True)]
    if not others:
        return _dumped({"rows": rows, "metric": comparison.metric}, comparison)
    notes = tuple(dict.fromkeys(note for each in every for note in each.notes))
    whole = replace(comparison, notes=notes)
    return _dumped({"rows": rows, "metrics": [each.metric for each in every]}, whole)


def _json_rows(comparison: Comparison, by: str) -> list[dict[str, Any]]:
    if by != "strategy":
        return rows_by(comparison, by)
    return [
        {
            "scenario": scenario,
            "strategy": row.strategy,
            "seeds": len(row.seeds),
            **asdict(row.headline),
            "difference": row.difference and {"to": comparison.baseline, **asdict(row.difference)},
            "chance": report.chance,
            "memory_bytes": row.memory_bytes,
            "seconds": row.seconds,
            "vector_size": row.vector_size,
        }
        for scenario, report in comparison.reports.items()
        for row in report.rows
    ]


def protocol_json(comparison: ProtocolComparison) -> str:
    """``{"protocol": ..., "rows": [...], "baseline": ..., "notes": [...]}``; null where undefined.

    A row has ``scenario``, ``stage``, ``strategy``, the number of ``seeds``, the number of
    ``queries``, how many of them are ``missing``, each measure by its name in ``scores.json`` as
    ``{"mean", "low", "high"}``, and the ``difference`` of the first as ``{"to", "mean", "low",
    "high"}``. Recalls are fractions. Where queries are of tasks, ``tasks`` has the first of each.
    """
    rows = [
        {
            "scenario": report.scenario,
            "series": report.title,
            "stage": row.stage,
            "strategy": row.strategy,
            "seeds": len(row.seeds),
            "queries": report.queries,
            "missing": report.missing,
            **{
                measure.name: each and _ends(each)
                for measure, each in zip(report.measures, row.estimates, strict=True)
            },
            "difference": row.difference and {"to": comparison.baseline, **_ends(row.difference)},
            **({"tasks": {k: v and _ends(v) for k, v in row.groups.items()}} if row.groups else {}),
        }
        for report in comparison.reports
        for row in report.rows
    ]
    return _dumped({"protocol": comparison.protocol, "rows": rows}, comparison)


def _dumped(value: dict[str, Any], comparison: Comparison | ProtocolComparison) -> str:
    value |= {"baseline": comparison.baseline, "notes": list(comparison.notes)}
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)


def _ends(estimate: Estimate) -> dict[str, float | None]:
    return {key: v if math.isfinite(v) else None for key, v in asdict(estimate).items()}


def decimals(estimates: Iterable[Estimate | None], scale: float = 100) -> int:
    """Decimals of a column, 1 to 3, so that the widest interval has two digits or more.

    >>> [decimals([Estimate(0.3, 0.3 - half, 0.3 + half)]) for half in (0.02, 0.002, 0.0002, 0.0)]
    [1, 2, 3, 1]
    """
    halves = [scale * abs(each.high - each.low) / 2 for each in estimates if each is not None]
    widest = max((half for half in halves if math.isfinite(half)), default=0.0)
    return 1 if widest >= 1 or not widest else 2 if widest >= 0.1 else 3


@dataclass(frozen=True, slots=True)
class Cell:
    """An estimate as a table shows it; a dash where there is none."""

    estimate: Estimate | None
    decimals: int
    scale: float = 100

    @property
    def printed(self) -> float:
        """The mean, rounded as it is shown."""
        return (
            math.nan
            if self.estimate is None
            else round(self._scaled(self.estimate.mean), self.decimals)
        )

    def range(self, sign: str = "") -> str:
        """``53.1 [51.0, 55.2]``."""
        if self.estimate is None:
            return UNDEFINED
        ends = [
            f"{self._scaled(end):z.{self.decimals}f}"
            for end in (self.estimate.low, self.estimate.high)
        ]
        return f"{self._scaled(self.estimate.mean):{sign}z.{self.decimals}f} [{', '.join(ends)}]"

    def half(self) -> str:
        """``53.1±2.1``, half the interval's width."""
        if self.estimate is None:
            return UNDEFINED
        width = self._scaled(self.estimate.high - self.estimate.low)
        return (
            f"{self._scaled(self.estimate.mean):z.{self.decimals}f}±{width / 2:.{self.decimals}f}"
        )

    def _scaled(self, value: float) -> float:
        return self.scale * value


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
