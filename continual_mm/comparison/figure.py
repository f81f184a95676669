"""A figure of a comparison: the score of every pair over the stages, one line per strategy."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from continual_mm.comparison.compare import Comparison, Row, ScenarioReport
from continual_mm.comparison.estimates import METRICS, Estimate, Metric
from continual_mm.runs.records import Role
from continual_mm.system.errors import InputError
from continual_mm.system.files import atomic_write

_FORMATS = (".png", ".svg", ".pdf")
_DATES = {".svg": "Date", ".pdf": "CreationDate"}  # what is left out: equal runs, equal bytes
_DOTS_PER_INCH = 140
_WIDTH = 10.0
_PANELS_A_ROW = 3
_KEYS_A_ROW = 4
_STAGES_WITH_NAMES = 4
_SPREAD = 0.4  # width over which the strategies of one stage stand side by side, in stages

INK, FAINT, RULE = "#333333", "#6b6b6b", "#e3e3e3"
_BASELINE = "#808080"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's palette without yellow, which vanishes on white: safe for the colour-blind."""
_MARKERS = ("s", "^", "D", "v", "P", "X", "*")
"""One more than colours, so that 42 strategies look different."""
_DASHES = ("--", ":", "-.")
_ROLES: dict[Role, str] = {
    "old": "old: trained before the last stage",
    "new": "new: first trained in the last stage",
    "emergent": "emergent: never trained",
}


@dataclass(frozen=True, slots=True)
class Style:
    """How a strategy is drawn, and its offset from the stage on the x-axis."""

    colour: str
    line: str
    marker: str
    shift: float = 0.0


def pictures(comparison: Comparison, path: Path) -> Iterator[Path]:
    """Write a picture of each scenario; that of several goes into files with their names as well.

    It is a PNG of 1400 pixels, an SVG or a PDF, as the file's name says.

    Raises:
        InputError: If the name is of no such picture.
    """
    check_picture(path)
    for name in comparison.reports:
        several = len(comparison.reports) > 1
        own = path.with_stem(f"{path.stem}-{name.replace('/', '_')}") if several else path
        draw(comparison, name, own)
        yield own


def check_picture(path: Path) -> None:
    """Refuse a file name that says no format of pictures."""
    if path.suffix.lower() not in _FORMATS:
        remedy = f"end it with {' or '.join(_FORMATS)}"
        raise InputError.at(path, f"{path.suffix or 'no ending'!r} is no format here", remedy)


def draw(comparison: Comparison, scenario: str, path: Path) -> None:
    """Write a picture with one panel per pair, old pairs first.

    The strategies of a stage stand side by side, so that their 95 % intervals can be distinguished;
    joint training is a dashed line. A strategy looks the same in all figures of one comparison.
    """
    save(plot(comparison, scenario), path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the file's name says; equal figures give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary, rc_context({"svg.hashsalt": path.stem}):
        kind = path.suffix.lower()
        known = {_DATES[kind]: None} if kind in _DATES else None
        figure.savefig(temporary, format=kind[1:], dpi=_DOTS_PER_INCH, metadata=known)


def plot(comparison: Comparison, scenario: str) -> Figure:
    """The figure that :func:`draw` writes."""
    report, metric = comparison.reports[scenario], METRICS[comparison.metric]
    styles = styles_of(comparison, report.rows)
    order = list(_ROLES)
    pairs = sorted(report.pairs, key=lambda name: order.index(report.pairs[name].role))
    columns = min(len(pairs), _PANELS_A_ROW)
    lines = math.ceil(len(pairs) / columns)
    figure = Figure(figsize=(_WIDTH, 1.7 + 3.0 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axes in grid.flat[len(pairs) :]:
        axes.remove()
    for axes, pair in zip(grid.flat, pairs, strict=False):
        for row in report.rows:
            _draw_strategy(axes, row.recalls[pair], styles[row.strategy], metric.scale)
        _format_axes(axes, pair, report)
    for axes in grid[:, 0]:
        axes.set_ylabel(f"{unit_of(metric)}, mean of directions", fontsize=9, color=FAINT)
    highest = 1.04 * grid[0, 0].get_ylim()[1]
    grid[0, 0].set_ylim(*((highest, 1) if metric.median else (0, highest)))
    title = f"{scenario}: {metric.heading} of every pair after each stage, {report.split} split"
    _add_title_and_legend(figure, title, report.rows, styles)
    return figure


def unit_of(metric: Metric) -> str:
    """What an axis of scores says; of ranks the best is above."""
    return f"{metric.heading}, from 1" if metric.median else f"{metric.heading} in %"


def styles_of(comparison: Comparison, rows: Sequence[Row]) -> dict[str, Style]:
    """A style per strategy of a scenario; assigned over all scenarios."""
    joint = {row.strategy: row.joint for one in comparison.reports.values() for row in one.rows}
    drawn = {comparison.baseline: (_BASELINE, "-", "o")}
    supply, dashes = zip(cycle(_COLOURS), cycle(_MARKERS), strict=False), cycle(_DASHES)
    for strategy in sorted(joint):
        if joint[strategy]:
            drawn[strategy] = (INK, next(dashes), "")
        elif strategy not in drawn:
            colour, marker = next(supply)
            drawn[strategy] = (colour, "-", marker)
    abreast = [row.strategy for row in rows if not row.joint]
    step = _SPREAD / max(len(abreast) - 1, 1)
    shifts = {name: (i - (len(abreast) - 1) / 2) * step for i, name in enumerate(abreast)}
    names = [row.strategy for row in rows]
    return {name: Style(*drawn[name], shift=shifts.get(name, 0.0)) for name in names}


def _draw_strategy(
    axes: Axes, recalls: Sequence[Estimate | None], style: Style, scale: float
) -> None:
    """One line with intervals; a level across the panel for joint training."""
    points = [(stage, value) for stage, value in enumerate(recalls, start=1) if value is not None]
    if not points:
        return
    if not style.marker:
        _, last = points[-1]
        axes.axhspan(scale * last.low, scale * last.high, color=style.colour, alpha=0.07, lw=0)
        axes.axhline(scale * last.mean, color=style.colour, ls=style.line, lw=1.4)
        return
    means = np.array([scale * value.mean for _, value in points])
    ends = np.array([[scale * value.low, scale * value.high] for _, value in points]).T
    axes.errorbar(
        [stage + style.shift for stage, _ in points],
        means,
        yerr=np.maximum([means - ends[0], ends[1] - means], 0),
        color=style.colour,
        ls=style.line,
        marker=style.marker,
        lw=1.6,
        elinewidth=1.1,
        ms=8,
        mec="white",
        mew=0.5,
        zorder=3,
    )


def _format_axes(axes: Axes, pair: str, report: ScenarioReport) -> None:
    """Title, stages and grid."""
    axes.set_title(pair, loc="left", fontsize=11, fontweight="bold", color=INK, pad=18)
    axes.annotate(
        _ROLES[report.pairs[pair].role],
        xy=(0, 1),
        xytext=(0, 5),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=9,
        color=FAINT,
    )
    stages = range(1, len(report.arrivals) + 1)
    axes.set_xticks(stages, _stage_labels(report.arrivals), fontsize=9, color=INK)
    axes.set_xlim(0.55, len(stages) + 0.45)
    axes.tick_params(length=0, labelsize=9, labelcolor=INK)
    axes.grid(axis="y", color=RULE, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)


def _stage_labels(arrivals: Sequence[Sequence[str]]) -> list[str]:
    """The number of each stage, and the modalities that it adds where there is room."""
    if len(arrivals) > _STAGES_WITH_NAMES:
        return [str(stage) for stage in range(1, len(arrivals) + 1)]
    return [
        "\n".join([f"stage {stage}", *(f"+ {name}" for name in added)])
        for stage, added in enumerate(arrivals, start=1)
    ]


def _add_title_and_legend(
    figure: Figure, title: str, rows: Sequence[Row], styles: dict[str, Style]
) -> None:
    """Title and legend; strategies are listed best first, as in the table."""
    counts = [len(row.seeds) for row in rows]
    fewest, most = min(counts), max(counts)
    seeds = f"{most} seed{'s' * (most > 1)}" if fewest == most else f"{fewest} to {most} seeds"
    figure.suptitle(f"{title}, {seeds}", fontsize=13, fontweight="bold", color=INK)
    keys = [
        Line2D([], [], color=style.colour, ls=style.line, marker=style.marker, ms=7, label=name)
        for name, style in ((row.strategy, styles[row.strategy]) for row in rows)
    ]
    columns = min(len(keys), _KEYS_A_ROW)
    joint = "; dashed: everything trained at once" if any(row.joint for row in rows) else ""
    legend = figure.legend(
        handles=[key for column in range(columns) for key in keys[column::columns]],
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=10,
        labelcolor=INK,
        title=f"95 % intervals over queries and seeds{joint}",
        title_fontsize=9,
    )
    legend.get_title().set_color(FAINT)
