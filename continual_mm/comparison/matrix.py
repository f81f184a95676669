"""A figure of a comparison: the score of each pair after each stage, a panel for each strategy."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from continual_mm.comparison.compare import Comparison, Row, ScenarioReport
from continual_mm.comparison.estimates import METRICS, Floats
from continual_mm.comparison.figure import FAINT, INK, unit_of

_PANELS_A_ROW = 4
_ORDER = ("old", "new", "emergent")


def plot_matrix(comparison: Comparison, scenario: str) -> Figure:
    """Pairs down, stages across; one scale of colours for all strategies, from 0 to the best score.

    Old pairs come first, then new ones, then those that no stage trains.
    """
    report, metric = comparison.reports[scenario], METRICS[comparison.metric]
    pairs = sorted(report.pairs, key=lambda pair: _ORDER.index(report.pairs[pair].role))
    values = {row.strategy: _values(row, pairs, metric.scale) for row in report.rows}
    highest = max((float(np.nanmax(each)) for each in values.values()), default=1.0)
    columns = min(len(values), _PANELS_A_ROW)
    lines = math.ceil(len(values) / columns)
    stages = len(report.arrivals)
    size = (1.6 + columns * max(1.9, 0.75 * stages), 1.3 + lines * (0.6 + 0.38 * len(pairs)))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(values) :]:
        axes.remove()
    for axes, (strategy, each) in zip(grid.flat, values.items(), strict=False):
        image = axes.imshow(each, vmin=0, vmax=highest, cmap="cividis", aspect="auto")
        axes.set_title(strategy, fontsize=10, loc="left", color=INK)
        axes.set_xticks(range(stages), [str(n) for n in range(1, stages + 1)], color=FAINT)
        axes.set_yticks(range(len(pairs)), _labels(report, pairs), color=INK, fontsize=9)
        axes.tick_params(length=0)
        _write(axes, each, highest)
    figure.supxlabel("stage", fontsize=9, color=FAINT)
    figure.colorbar(image, ax=grid.ravel().tolist()[: len(values)], label=unit_of(metric))
    figure.suptitle(f"{scenario}: {metric.heading} of pairs after stages, {report.split} split")
    return figure


def _labels(report: ScenarioReport, pairs: list[str]) -> list[str]:
    return [f"{pair} ({report.pairs[pair].role})" for pair in pairs]


def _values(row: Row, pairs: list[str], scale: float) -> Floats:
    """(pairs, stages), NaN where there is no score."""
    return np.array(
        [
            [math.nan if each is None else scale * each.mean for each in row.recalls[pair]]
            for pair in pairs
        ]
    )


def _write(axes: Axes, values: Floats, highest: float) -> None:
    for (line, column), value in np.ndenumerate(values):
        if not math.isnan(value):
            colour = "black" if value > 0.6 * highest else "white"
            axes.text(
                column, line, f"{value:.1f}", ha="center", va="center", fontsize=8, color=colour
            )
