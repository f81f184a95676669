"""How one modality looks in a picture of items, and one item of it drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from numpy.typing import NDArray

from continual_mm.modality import Kind, Modality

INK, FAINT, RULE, ALARM = "#333333", "#6b6b6b", "#d6d6d6", "#b3261e"

SQUARE = 0.6
"""Width of a column of upright pictures, as a share of the width of others."""

_MOST_IN_LINE = 256
"""Features of a vector that are drawn as a line; more would be a solid bar."""

_NEARLY = 1.1
"""How much longer one side of a picture may be than the other, to be taken for one."""

_PERCENTILES = 1.0, 99.0

Values = NDArray[np.float32]


class Shape(Enum):
    """What a modality is drawn as."""

    LINE = auto()
    BLOCK = auto()
    TIME = auto()
    UPRIGHT = auto()
    FILM = auto()


@dataclass(frozen=True, slots=True)
class Look:
    """How all items of a modality are drawn.

    Attributes:
        shape: As what.
        low: Value of the darkest colour, or at the bottom.
        high: Value of the brightest colour, or at the top.
        colours: Name of a colour map.
        longest: Time steps that the width stands for.
        width: Of its column, compared with others.
        told: What it is, for its title.
    """

    shape: Shape
    low: float
    high: float
    colours: str
    longest: int
    width: float
    told: str


def look_of(modality: Modality, items: Sequence[Values]) -> Look:
    """Choose how a modality is drawn.

    Args:
        modality: Its kind and shape.
        items: What the items that are shown have, each cut to its length.
    """
    every = np.concatenate([np.empty(0, np.float32), *(item.reshape(-1) for item in items)])
    finite = every[np.isfinite(every)]
    shape = _shape(modality, items, finite)
    low, high = _limits(finite, shape)
    colours = "gray" if shape in (Shape.UPRIGHT, Shape.FILM) else "magma"
    if shape in (Shape.TIME, Shape.BLOCK) and _is_signed(modality, finite):
        colours, high = "RdBu_r", max(abs(low), abs(high))
        low = -high
    longest = max((len(item) for item in items), default=1)
    width = SQUARE if shape is Shape.UPRIGHT else 1.0
    return Look(shape, low, high, colours, longest, width, _told(modality, finite, shape))


def show(ax: Axes, item: Values, look: Look) -> None:
    """Draw one item; values that are not finite are left blank, and that is said."""
    if look.shape is Shape.LINE:
        if look.low < 0 < look.high:
            ax.axhline(0.0, color=RULE, linewidth=0.6)
        edges = np.arange(len(item) + 1) - 0.5
        ax.stairs(item, edges, baseline=None, color=INK, linewidth=0.8)
        edge = 0.05 * (look.high - look.low)
        ax.set_ylim(look.low - edge, look.high + edge)
        ax.set_xlim(-0.5, len(item) - 0.5)
    elif look.shape is Shape.BLOCK:
        _image(ax, _folded(item), look, aspect="auto")
    elif look.shape is Shape.UPRIGHT:
        _image(ax, item, look)
    elif look.shape is Shape.FILM:
        _image(ax, _mosaic(_film(item, look)), look)
    else:
        steps = item.reshape(len(item), -1)
        _image(ax, steps.T, look, aspect="auto", origin="lower")
        ax.set_xlim(-0.5, look.longest - 0.5)
        _tick(ax, len(item))
    if not np.isfinite(item).all():
        say(ax, "not finite", ALARM)


def say(ax: Axes, words: str, colour: str) -> None:
    """Write into the middle of a cell."""
    ax.text(
        *(0.5, 0.5, words),
        transform=ax.transAxes,
        ha="center",
        va="center",
        fontsize=9,
        color=colour,
        parse_math=False,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 2},
    )


def bare(ax: Axes) -> None:
    """Without ticks and frame."""
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ax.spines.values():
        side.set_visible(False)


def _shape(modality: Modality, items: Sequence[Values], finite: Values) -> Shape:
    if modality.kind is Kind.VECTOR:
        return Shape.LINE if modality.features <= _MOST_IN_LINE else Shape.BLOCK
    if modality.kind is Kind.FRAMES and _channels(modality.shape) is not None:
        return Shape.FILM
    if modality.kind is not Kind.SPECTROGRAM and len(modality.shape) == 2:
        height, width = modality.shape
        whole = all(len(item) == height for item in items) and min(height, width) > 2
        square = max(height, width) <= _NEARLY * min(height, width)
        if whole and square and len(finite) and finite.min() >= 0:
            return Shape.UPRIGHT
    return Shape.TIME


def _channels(shape: tuple[int, ...]) -> int | None:
    """The axis of colours of frames that are pictures, 0 for none; None if they are no pictures."""
    if len(shape) == 3:
        return 0
    if len(shape) != 4:
        return None
    return next((axis for axis in (3, 1) if shape[axis] in (1, 3)), None)


def _limits(finite: Values, shape: Shape) -> tuple[float, float]:
    """What the range of colours, or of a line, stands for; never empty."""
    if not len(finite):
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    if shape is not Shape.LINE:
        inner = np.percentile(finite, _PERCENTILES)
        # Of what is nearly always the same, such as words as ones among zeros, all is shown.
        low, high = inner.tolist() if inner[0] < inner[1] else (low, high)
    return low, high if high > low else low + 1.0


def _is_signed(modality: Modality, finite: Values) -> bool:
    """Whether values lie on both sides of 0, so that it is the middle; decibels are not."""
    if modality.kind is Kind.SPECTROGRAM or not len(finite):
        return False
    mean, spread = float(finite.mean()), float(finite.std())
    return finite.min() < 0 < finite.max() and abs(mean) < spread


def _told(modality: Modality, finite: Values, shape: Shape) -> str:
    size = " x ".join(map(str, modality.shape))
    values = f", {finite.min():.3g} to {finite.max():.3g}" if len(finite) else ""
    how = {Shape.BLOCK: ", row by row", Shape.FILM: ", evenly spread"}.get(shape, "")
    return f"{modality.kind} {size}{values}{how}"


def _image(ax: Axes, values: NDArray[Any], look: Look, **how: Any) -> None:
    colours = colormaps[look.colours].with_extremes(bad="white")
    ax.imshow(values, vmin=look.low, vmax=look.high, cmap=colours, **how)


def _tick(ax: Axes, steps: int) -> None:
    """How many steps an item has, below its end."""
    named = f"{steps:,} steps" if steps > 1 else "1 step"
    ax.set_xticks([steps - 0.5], [named], fontsize=6, color=FAINT, ha="right")
    ax.tick_params(axis="x", length=2, width=0.5, color=FAINT, pad=1)


def _folded(vector: Values) -> Values:
    """A long vector as rows, one below the other, half as wide again as high."""
    width = int(np.ceil(np.sqrt(1.5 * len(vector))))
    height = -(-len(vector) // width)
    folded = np.full(height * width, np.nan, np.float32)
    folded[: len(vector)] = vector
    return folded.reshape(height, width)


def _film(item: Values, look: Look) -> Values:
    """(time, height, width) or, with values from 0 to 1, (time, height, width, 3)."""
    if item.ndim == 3:
        return item
    last = item if item.shape[3] in (1, 3) else np.moveaxis(item, 1, 3)
    if last.shape[3] == 1:
        return last[..., 0]
    scaled: Values = np.clip((last - look.low) / (look.high - look.low), 0.0, 1.0)
    return scaled


def _mosaic(film: Values) -> Values:
    """Up to four frames, evenly spread, with white between them."""
    chosen = film[np.unique(np.linspace(0, len(film) - 1, 4).astype(np.int64))]
    across = 2 if len(chosen) == 4 else len(chosen)
    height, width = chosen.shape[1:3]
    blank = 1.0 if film.ndim == 4 else np.nan
    down = -(-len(chosen) // across)
    size = (down * (height + 1) - 1, across * (width + 1) - 1, *chosen.shape[3:])
    mosaic = np.full(size, blank, np.float32)
    for number, frame in enumerate(chosen):
        top, left = (height + 1) * (number // across), (width + 1) * (number % across)
        mosaic[top : top + height, left : left + width] = np.nan_to_num(frame, nan=blank)
    return mosaic
