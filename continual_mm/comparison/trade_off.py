"""A figure of a comparison: old pairs against new ones, a mark for each strategy."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from continual_mm.comparison.compare import Comparison, Row
from continual_mm.comparison.estimates import METRICS, Estimate
from continual_mm.comparison.figure import FAINT, INK, RULE, Style, styles_of, unit_of

_FRONT = "#b0b0b0"
_Point = tuple[float, float]


def plot_trade_off(comparison: Comparison, scenario: str) -> Figure:
    """Old pairs on one axis, new ones on the other, with 95 % intervals: above and right is good.

    A grey line joins the strategies of the Pareto front: none is better at both. Joint training,
    which is no competitor, is hollow and has no part in it.
    """
    report, metric = comparison.reports[scenario], METRICS[comparison.metric]
    styles = styles_of(comparison, report.rows)
    figure = Figure(figsize=(7.2, 5.4), layout="constrained")
    axes = figure.subplots()
    shown = [row for row in report.rows if row.headline.old_pairs and row.headline.new_pairs]
    for row in shown:
        _mark(axes, row, styles[row.strategy], metric.scale)
    sign = -1 if metric.median else 1
    points = {row.strategy: point for row in shown if (point := _place(row)) and not row.bound}
    front = [
        points[name] for name in pareto({k: (sign * x, sign * y) for k, (x, y) in points.items()})
    ]
    axes.plot(*(metric.scale * np.array(front).T.reshape(2, -1)), color=_FRONT, lw=1, zorder=1)
    axes.set_xlabel(f"old pairs, {unit_of(metric)}", color=FAINT)
    axes.set_ylabel(f"new pairs, {unit_of(metric)}", color=FAINT)
    axes.set_title(
        f"{scenario}: old against new pairs, {report.split} split", color=INK, loc="left"
    )
    if metric.median:
        axes.invert_xaxis()
        axes.invert_yaxis()
    else:
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
    axes.grid(color=RULE, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if shown:
        figure.legend(loc="outside right upper", frameon=False, fontsize=9, labelcolor=INK)
    return figure


def pareto(points: dict[str, _Point]) -> list[str]:
    """Names of the points that no other one is at least as good as in both, by the first.

    >>> pareto({"a": (1, 5), "b": (2, 4), "c": (1, 4)})
    ['a', 'b']
    """

    def beaten(point: _Point) -> bool:
        others = (other for other in points.values() if other != point)
        return any(x >= point[0] and y >= point[1] for x, y in others)

    return sorted(
        (name for name, point in points.items() if not beaten(point)), key=lambda name: points[name]
    )


def _place(row: Row) -> _Point | None:
    old, new = row.headline.old_pairs, row.headline.new_pairs
    return (old.mean, new.mean) if old and new else None


def _mark(axes: Axes, row: Row, style: Style, scale: float) -> None:
    old, new = row.headline.old_pairs, row.headline.new_pairs
    if old is None or new is None:
        return
    axes.errorbar(
        [scale * old.mean],
        [scale * new.mean],
        xerr=_half(old, scale),
        yerr=_half(new, scale),
        color=style.colour,
        marker=style.marker or "o",
        mfc="white" if row.bound else style.colour,
        ls="",
        ms=9,
        elinewidth=1,
        label=row.strategy,
        zorder=3,
    )


def _half(estimate: Estimate, scale: float) -> Sequence[Sequence[float]]:
    ends = estimate.mean - estimate.low, estimate.high - estimate.mean
    return [[scale * max(end, 0.0)] for end in ends]
