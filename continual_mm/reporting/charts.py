"""The figures of a report, as Vega-Lite charts: recall over stages, old against new, a heat map."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import altair as alt

from continual_mm.comparison.compare import Comparison, Row, ScenarioReport
from continual_mm.comparison.estimates import METRICS, Estimate, Metric
from continual_mm.comparison.trade_off import pareto

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#8c510a")
"""Okabe and Ito's palette, yellow and black replaced by grey and brown, which both grounds show."""
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "stroke")
ROLES = ("old", "new", "emergent")
PANEL = 190  # pixels
PANELS_A_ROW = 3
HEAT_A_ROW = 4
Chart = Any
"""Altair's charts of all kinds."""


def charts(comparison: Comparison, scenario: str) -> Mapping[str, Chart]:
    """Name -> chart of a scenario; ``trade-off`` only where there are old and new pairs."""
    report, metric = comparison.reports[scenario], METRICS[comparison.metric]
    looks = Looks.of(comparison)
    found = {
        "recall": _recall(report, metric, looks),
        "trade-off": _trade_off(report, metric, looks),
        "matrix": _matrix(report, metric),
    }
    return MappingProxyType({name: chart for name, chart in found.items() if chart is not None})


class Looks:
    """A colour and a shape for each strategy, the same in all figures of a report."""

    def __init__(self, strategies: Sequence[str]) -> None:
        self.names = list(strategies)
        self.colours = [COLOURS[n % len(COLOURS)] for n in range(len(self.names))]
        # One more turn of the colours has other shapes, so that 56 look different.
        turns = [n // len(COLOURS) + n for n in range(len(self.names))]
        self.shapes = [SHAPES[n % len(SHAPES)] for n in turns]

    @classmethod
    def of(cls, comparison: Comparison) -> "Looks":
        """Those of a comparison, in the order of names."""
        names = {row.strategy for one in comparison.reports.values() for row in one.rows}
        return cls(sorted(names))

    def colour(self, *, legend: bool = True) -> alt.Color:
        """Of the field ``strategy``."""
        scale = alt.Scale(domain=self.names, range=self.colours)
        key = alt.Legend(title=None, symbolSize=90, symbolLimit=0) if legend else None
        return alt.Color("strategy:N", scale=scale, legend=key)

    def shape(self, *, legend: bool = True) -> alt.Shape:
        """Of the field ``strategy``, in the legend of the colours."""
        scale = alt.Scale(domain=self.names, range=self.shapes)
        return alt.Shape(
            "strategy:N",
            scale=scale,
            legend=alt.Legend(title=None, symbolLimit=0) if legend else None,
        )


def title_of(metric: Metric) -> str:
    """What an axis of scores says."""
    return f"{metric.heading}{' in %' if metric.unit else ', from 1'}"


def _values(estimate: Estimate, metric: Metric, name: str = "") -> dict[str, float]:
    ends = {"": estimate.mean, "low": estimate.low, "high": estimate.high}
    return {f"{name}{end}" or "mean": round(metric.scale * v, 3) for end, v in ends.items()}


def _titles(report: ScenarioReport) -> dict[str, str]:
    """Pair -> its name with its role; old ones first, then new ones."""
    order = sorted(report.pairs, key=lambda pair: ROLES.index(report.pairs[pair].role))
    return {pair: f"{pair} ({report.pairs[pair].role})" for pair in order}


def _cells(report: ScenarioReport, metric: Metric) -> list[dict[str, Any]]:
    """The score of each strategy and pair after each stage."""
    titles = _titles(report)
    return [
        {"strategy": row.strategy, "pair": titles[pair], "stage": stage, **_values(found, metric)}
        for row in report.rows
        for pair, estimates in row.recalls.items()
        for stage, found in enumerate(estimates, start=1)
        if found is not None
    ]


def _recall(report: ScenarioReport, metric: Metric, looks: Looks) -> Chart | None:
    """A panel for each pair: the score after each stage."""
    titles = _titles(report)
    rows = _cells(report, metric)
    if not rows:
        return None
    shown = {str(row["strategy"]) for row in rows}
    offset = alt.XOffset("strategy:N", scale=alt.Scale(domain=sorted(shown), paddingOuter=0.3))
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("stage:O", title="stage", axis=alt.Axis(labelAngle=0)),
        xOffset=offset,
        color=looks.colour(),
        tooltip=["strategy:N", "pair:N", "stage:O", "mean:Q", "low:Q", "high:Q"],
    )
    scale = alt.Scale(reverse=metric.median, zero=not metric.median)
    lines = base.mark_line(strokeWidth=1.5).encode(
        y=alt.Y("mean:Q", title=title_of(metric), scale=scale)
    )
    bars = base.mark_rule(strokeWidth=1.2).encode(y=alt.Y("low:Q", scale=scale), y2="high:Q")
    points = base.mark_point(filled=True, size=55, opacity=1).encode(
        y=alt.Y("mean:Q", scale=scale), shape=looks.shape()
    )
    return (
        alt.layer(bars, lines, points)
        .properties(width=PANEL + 30, height=PANEL)
        .facet(
            facet=alt.Facet("pair:N", title=None, sort=list(titles.values())),
            columns=min(PANELS_A_ROW, len(titles)),
        )
    )


def _trade_off(report: ScenarioReport, metric: Metric, looks: Looks) -> Chart | None:
    """Old pairs across, new pairs up, with intervals, names and the Pareto front."""
    shown = [row for row in report.rows if row.headline.old_pairs and row.headline.new_pairs]
    if not shown:
        return None
    rows = [{**_place(row, metric), "kind": _kind(row)} for row in shown]
    sign = -1 if metric.median else 1
    points = {
        str(one["strategy"]): (sign * float(one["old"]), sign * float(one["new"]))
        for one in rows
        if one["kind"] != "bound"
    }
    front = [{"old": sign * x, "new": sign * y} for x, y in (points[n] for n in pareto(points))]
    scale = alt.Scale(reverse=metric.median, zero=not metric.median)
    across = alt.X("old:Q", title=f"old pairs, {title_of(metric)}", scale=scale)
    up = alt.Y("new:Q", title=f"new pairs, {title_of(metric)}", scale=scale)
    base = alt.Chart(alt.Data(values=rows)).encode(
        color=looks.colour(legend=False), tooltip=["strategy:N", "kind:N", "old:Q", "new:Q"]
    )
    line = (
        alt.Chart(alt.Data(values=front))
        .mark_line(strokeDash=[4, 3], color="#888888", strokeWidth=1.2)
        .encode(x=across, y=up, order="old:Q")
    )
    wide = base.mark_rule(strokeWidth=1).encode(x=alt.X("oldlow:Q"), x2="oldhigh:Q", y=up)
    high = base.mark_rule(strokeWidth=1).encode(x=across, y=alt.Y("newlow:Q"), y2="newhigh:Q")
    marks = base.mark_point(size=110, strokeWidth=2, opacity=1).encode(
        x=across,
        y=up,
        shape=looks.shape(legend=False),
        fill=alt.condition(
            "datum.kind == 'bound'", alt.value("transparent"), looks.colour(legend=False)
        ),
    )
    names = base.mark_text(align="left", dx=9, dy=-8, fontSize=11).encode(
        x=across, y=up, text="strategy:N"
    )
    return alt.layer(line, wide, high, marks, names).properties(width=460, height=340)


def _place(row: Row, metric: Metric) -> dict[str, Any]:
    old, new = row.headline.old_pairs, row.headline.new_pairs
    ends = (
        {}
        if old is None or new is None
        else {**_values(old, metric, "old"), **_values(new, metric, "new")}
    )
    return {"strategy": row.strategy, **ends}


def _kind(row: Row) -> str:
    """A bound, which trains past items again, is hollow and has no part in the front."""
    return "bound" if row.bound else "strategy"


def _matrix(report: ScenarioReport, metric: Metric) -> Chart | None:
    """A panel for each strategy: pairs down, stages across, one scale of colours."""
    titles = _titles(report)
    rows = _cells(report, metric)
    if not rows:
        return None
    most = max(float(row["mean"]) for row in rows)
    ends = [most, 1] if metric.median else [0, most]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("stage:O", title="stage", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("pair:N", title=None, sort=list(titles.values())),
        tooltip=["strategy:N", "pair:N", "stage:O", "mean:Q", "low:Q", "high:Q"],
    )
    scale = alt.Scale(domain=ends, scheme="cividis")
    cells = base.mark_rect().encode(color=alt.Color("mean:Q", title=title_of(metric), scale=scale))
    dark = f"datum.mean {'<' if metric.median else '>'} {0.6 * most}"
    numbers = base.mark_text(fontSize=10).encode(
        text=alt.Text("mean:Q", format=".1f"),
        color=alt.condition(dark, alt.value("#111111"), alt.value("#ffffff")),
    )
    stages = len(report.arrivals)
    names = [row.strategy for row in report.rows]
    return (
        alt.layer(cells, numbers)
        .properties(width=max(90, 46 * stages), height=26 * len(titles))
        .facet(
            facet=alt.Facet("strategy:N", title=None, sort=names),
            columns=min(HEAT_A_ROW, len(names)),
        )
    )
