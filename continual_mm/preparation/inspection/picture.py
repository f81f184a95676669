"""How one modality looks in a picture of items, and one item of it drawn."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from textwrap import wrap
from typing import Any
from unicodedata import east_asian_width

import numpy as np
import torch
from matplotlib import colormaps, font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from numpy.typing import NDArray

from continual_mm.data.dataset import Dataset, Split
from continual_mm.definitions.modality import SPLITS, Kind, Modality
from continual_mm.system.errors import InputError, Problem

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


_DOTS_PER_INCH = 150
_CELL = 2.4, 1.35
"""Width and height of what one item shows in one modality, in inches."""

_MARGIN, _GAP, _TITLE, _TICKS, _LINE = 0.1, 0.16, 0.45, 0.16, 0.125
"""Around the page, between cells, and for titles, time and lines of captions, in inches."""

_NARROWEST = 5.2
"""Inches of a picture with a single column, so that captions have room."""

_SMALL = 7.0  # points
_POINTS = 72.0  # of an inch
_SAFE = 0.95
"""Share of the width that captions are to fill, since their lines are not all equally wide."""

_LINES = 2  # of a caption
_FONTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "WenQuanYi Micro Hei"),
    *("Hiragino Sans", "PingFang SC", "Yu Gothic", "Microsoft YaHei", "Malgun Gothic"),
)
"""What draws letters that matplotlib's own font lacks, where it is installed."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What came of a picture.

    Attributes:
        path: The file.
        items: How many it shows.
        unwritten: Whether the captions have letters that no font here can draw.
    """

    path: Path
    items: int
    unwritten: bool


def draw(dataset: Dataset, path: str | os.PathLike[str], *, items: int = 4) -> Drawn:
    """Draw a row for each item and a column for each modality.

    A vector is a line over its features, or a block of its values row by row where they are many.
    Everything with time is an image, time from left to right and to scale, features from bottom to
    top; frames that are pictures, grey or of three colours, are up to four of them; what is square
    and never negative stands upright as a picture. Thumbnails come first where the dataset has
    them. All rows of a column share one range of values, from the 1st to the 99th percentile.

    Args:
        dataset: As it is in the file, not standardised.
        path: Where to; an existing file is replaced. Its ending says in which form.
        items: Number of test items, evenly spread; of any items if there is none for testing.

    Raises:
        InputError: If the file cannot be written.
    """
    test = dataset.rows_of(Split.TEST)
    rows = test if len(test) else np.arange(len(dataset))
    rows = rows[np.linspace(0, len(rows) - 1, min(items, len(rows))).astype(np.int64)]
    figure = _figure(dataset, rows)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            figure.savefig(Path(path), dpi=_DOTS_PER_INCH)
        except OSError as error:
            problem = f"cannot be written: {error.strerror or error}"
            raise InputError(Problem(f"picture {path}", problem)) from error
    unwritten = any("missing from font" in str(one.message) for one in told)
    return Drawn(Path(path), len(rows), unwritten)


def _figure(dataset: Dataset, rows: NDArray[np.int64]) -> Figure:
    shown = {name: _items(dataset, name, rows) for name in dataset.columns}
    looks = {
        name: look_of(dataset.columns[name].modality, list(each.values()))
        for name, each in shown.items()
    }
    page = _Page.of(dataset, rows, [look.width for look in looks.values()])
    columns = iter(range(len(page.widths)))
    if dataset.picture is not None:
        column = next(columns)
        page.title(column, "picture", " x ".join(map(str, dataset.picture.shape[1:3])))
        for number, row in enumerate(rows):
            ax = page.cell(number, column)
            ax.imshow(dataset.picture[row], cmap="gray", vmin=0, vmax=255)
    for column, (name, look) in zip(columns, looks.items(), strict=True):
        page.title(column, name, look.told)
        for number, row in enumerate(rows.tolist()):
            ax = page.cell(number, column)
            if row in shown[name]:
                show(ax, shown[name][row], look)
            else:
                say(ax, f"no {name}", FAINT)
    return page.figure


class _Page:
    """A grid of cells, in inches, with titles above its columns and captions below its rows.

    Layout is ours: captions run over all columns and must move none of them.

    Args:
        widths: Of the columns.
        captions: Of the rows.
    """

    def __init__(self, widths: Sequence[float], captions: Sequence[str]) -> None:
        self.widths = widths
        width = sum(widths) + _GAP * (len(widths) - 1) + 2 * _MARGIN
        lines = max(caption.count("\n") + 1 for caption in captions)
        self._pitch = _CELL[1] + _TICKS + _LINE * lines + _GAP
        self._width, self._height = width, _TITLE + self._pitch * len(captions)
        self.figure = Figure((self._width, self._height))
        for row, caption in enumerate(captions):
            self._text(_MARGIN, _TITLE + self._pitch * row + _CELL[1] + _TICKS, caption, _SMALL)

    @classmethod
    def of(cls, dataset: Dataset, rows: NDArray[np.int64], shares: Sequence[float]) -> "_Page":
        """One for some rows of a dataset and the modalities' shares of the width."""
        every = [*([SQUARE] if dataset.picture is not None else []), *shares]
        gaps = _GAP * (len(every) - 1) + 2 * _MARGIN
        whole = max(_CELL[0] * sum(every), _NARROWEST - gaps)
        widths = [whole * share / sum(every) for share in every]
        return cls(widths, _captions(dataset, rows, whole + gaps - 2 * _MARGIN))

    def cell(self, row: int, column: int) -> Axes:
        """Where an item is drawn, images at its upper left."""
        left, top = self._left(column), _TITLE + self._pitch * row
        size = self.widths[column] / self._width, _CELL[1] / self._height
        place = left / self._width, 1 - (top + _CELL[1]) / self._height
        ax = self.figure.add_axes((*place, *size), anchor="NW")
        bare(ax)
        return ax

    def title(self, column: int, name: str, told: str) -> None:
        """What a column shows."""
        self._text(self._left(column), 0.08, name, 10, INK)
        self._text(self._left(column), 0.28, told, 6.5)

    def _left(self, column: int) -> float:
        return _MARGIN + sum(self.widths[:column]) + _GAP * column

    def _text(self, left: float, top: float, text: str, size: float, colour: str = FAINT) -> None:
        self.figure.text(
            left / self._width,
            1 - top / self._height,
            text,
            fontsize=size,
            color=colour,
            va="top",
            family=_fonts(),
            parse_math=False,
        )


def _captions(dataset: Dataset, rows: NDArray[np.int64], inches: float) -> list[str]:
    """For each item its name, split and label, and below what is said of it."""
    texts = [""] * len(rows) if dataset.text is None else dataset.text[rows]
    told = []
    for row, name, text in zip(rows.tolist(), dataset.ids[rows], texts, strict=True):
        words = [str(name), SPLITS[int(dataset.split[row])]]
        if dataset.label is not None:
            words.append(f"label {dataset.label[row]}")
        lines = [_fitted(", ".join(words), inches, lines=1), _fitted(str(text), inches)]
        told.append("\n".join(line for line in lines if line))
    return told


def _fitted(text: str, inches: float, lines: int = _LINES) -> str:
    """As much of a text as fits into so many lines."""
    plain = " ".join(text.split())
    if not plain:
        return ""
    letters = int(inches * _POINTS * _SAFE * len(plain) / _width(plain))
    return "\n".join(wrap(plain, max(8, letters), max_lines=lines, placeholder=" ..."))


def _width(text: str) -> float:
    """Of a text in one line, in points; letters of East Asia, which the font lacks, get room."""
    size = FontProperties(family="DejaVu Sans", size=_SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        width, *_ = text_to_path.get_text_width_height_descent(text, size, ismath=False)
    return width + _SMALL * sum(east_asian_width(letter) in "WF" for letter in text)


def _fonts() -> list[str]:
    known = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(font for font in _FONTS if font in known)]


def _items(dataset: Dataset, name: str, rows: NDArray[np.int64]) -> dict[int, NDArray[np.float32]]:
    """What those of some rows show that have the modality, without padding."""
    column, found = dataset.columns[name], {}
    for row in rows.tolist():
        if column.present[row]:
            values, _ = column.take(torch.tensor([row]))
            found[row] = values[0].numpy()
    return found
