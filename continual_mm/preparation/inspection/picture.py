"""A picture of a few items: a row for each item, a panel for each of its modalities."""

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

from continual_mm.data.columns import Column
from continual_mm.data.dataset import Dataset, Split
from continual_mm.data.schema import NOT_GIVEN
from continual_mm.definitions.modality import SPLITS, Kind, Modality
from continual_mm.system.files import atomic_write, write_errors

_INK, _FAINT, _RULE, _ALARM = "#333333", "#6b6b6b", "#d6d6d6", "#b3261e"
_SQUARE = 0.6  # width of a column of square images, as a share of the width of others
_MOST_IN_LINE = 256  # features of a vector that are drawn as a line; more would be a solid bar
_NEARLY = 1.1  # ratio of the sides of an image that counts as square
_PERCENTILES = 1.0, 99.0

_DOTS_PER_INCH = 150
_PANEL_WIDTH, _PANEL_HEIGHT = 2.4, 1.35  # inches
_NARROWEST = 5.2  # inches of a picture with a single column, so that captions have room
_MARGIN, _GAP, _TITLE, _TICKS, _LINE = 0.1, 0.16, 0.45, 0.16, 0.125
"""Around the page, between panels, and for titles, time and lines of captions, in inches."""

_SMALL = 7.0  # points of a caption's letters
_FILLED = 0.95  # share of the width that captions fill, since letters are not equally wide
_LINES = 2  # of a caption
_FONTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "WenQuanYi Micro Hei"),
    *("Hiragino Sans", "PingFang SC", "Yu Gothic", "Microsoft YaHei", "Malgun Gothic"),
)
"""Fonts for letters that matplotlib's own font lacks, used where they are installed."""

Values = NDArray[np.float32]


class Form(Enum):
    """How an item is drawn."""

    LINE = auto()  # a vector
    BLOCK = auto()  # a long vector, row by row
    TIME = auto()  # time from left to right, features from bottom to top
    IMAGE = auto()
    FRAMES = auto()  # up to four images


@dataclass(frozen=True, slots=True)
class Style:
    """How items are drawn: colours or heights from ``low`` to ``high``, ``longest`` steps wide."""

    form: Form
    low: float
    high: float
    colours: str
    longest: int
    description: str


def style_of(modality: Modality, items: Sequence[Values]) -> Style:
    """Choose how a modality is drawn, by the values of some items, each cut to its length."""
    every = np.concatenate([np.empty(0, np.float32), *(item.reshape(-1) for item in items)])
    finite = every[np.isfinite(every)]
    form = _form(modality, items, finite)
    low, high = _limits(finite, form)
    colours = "gray" if form in (Form.IMAGE, Form.FRAMES) else "magma"
    if form in (Form.TIME, Form.BLOCK) and _is_signed(modality, finite):
        colours, high = "RdBu_r", max(-low, high)
        low = -high
    longest = max((len(item) for item in items), default=1)
    size = " x ".join(map(str, modality.shape))
    values = f", {finite.min():.3g} to {finite.max():.3g}" if len(finite) else ""
    how = {Form.BLOCK: ", row by row", Form.FRAMES: ", evenly spread"}.get(form, "")
    return Style(form, low, high, colours, longest, f"{modality.kind} {size}{values}{how}")


def _form(modality: Modality, items: Sequence[Values], finite: Values) -> Form:
    shape = modality.shape
    if modality.kind is Kind.VECTOR:
        return Form.LINE if modality.features <= _MOST_IN_LINE else Form.BLOCK
    coloured = len(shape) == 4 and (shape[3] in (1, 3) or shape[1] in (1, 3))
    if modality.kind is Kind.FRAMES and (len(shape) == 3 or coloured):
        return Form.FRAMES
    square = len(shape) == 2 and min(shape) > 2 and max(shape) <= _NEARLY * min(shape)
    if modality.kind is not Kind.SPECTROGRAM and square and len(finite) and finite.min() >= 0:
        return Form.IMAGE if all(len(item) == shape[0] for item in items) else Form.TIME
    return Form.TIME


def _limits(finite: Values, form: Form) -> tuple[float, float]:
    """The range of values that colours, or the height of a line, stand for; never empty."""
    if not len(finite):
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    if form is not Form.LINE:
        inner = np.percentile(finite, _PERCENTILES)
        # Where nearly all values are the same, such as zeros in one-hot words, all are shown.
        low, high = inner.tolist() if inner[0] < inner[1] else (low, high)
    return low, high if high > low else low + 1.0


def _is_signed(modality: Modality, finite: Values) -> bool:
    """Whether values lie on both sides of 0, so that it is the middle; decibels are not."""
    if modality.kind is Kind.SPECTROGRAM or not len(finite):
        return False
    mean, spread = float(finite.mean()), float(finite.std())
    return finite.min() < 0 < finite.max() and abs(mean) < spread


def _show(ax: Axes, item: Values, style: Style) -> None:
    """Draw one item; values that are not finite are left blank and marked."""
    if style.form is Form.LINE:
        if style.low < 0 < style.high:
            ax.axhline(0.0, color=_RULE, linewidth=0.6)
        edges = np.arange(len(item) + 1) - 0.5
        ax.stairs(item, edges, baseline=None, color=_INK, linewidth=0.8)
        edge = 0.05 * (style.high - style.low)
        ax.set_ylim(style.low - edge, style.high + edge)
        ax.set_xlim(-0.5, len(item) - 0.5)
    elif style.form is Form.TIME:
        _image(ax, item.reshape(len(item), -1).T, style, aspect="auto", origin="lower")
        ax.set_xlim(-0.5, style.longest - 0.5)
        steps = f"{len(item):,} steps" if len(item) > 1 else "1 step"
        ax.set_xticks([len(item) - 0.5], [steps], fontsize=6, color=_FAINT, ha="right")
        ax.tick_params(axis="x", length=2, width=0.5, color=_FAINT, pad=1)
    elif style.form is Form.BLOCK:
        width = int(np.ceil(np.sqrt(1.5 * len(item))))  # half as wide again as high
        rows = np.pad(item, (0, -len(item) % width), constant_values=np.nan).reshape(-1, width)
        _image(ax, rows, style, aspect="auto")
    else:
        _image(ax, item if style.form is Form.IMAGE else _mosaic(_frames(item, style)), style)
    if not np.isfinite(item).all():
        _annotate(ax, "not finite", _ALARM)


def _annotate(ax: Axes, words: str, colour: str) -> None:
    """Write into the middle of a panel."""
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


def _image(ax: Axes, values: NDArray[Any], style: Style, **options: Any) -> None:
    colours = colormaps[style.colours].with_extremes(bad="white")
    ax.imshow(values, vmin=style.low, vmax=style.high, cmap=colours, **options)


def _frames(item: Values, style: Style) -> Values:
    """(time, height, width) or, with values from 0 to 1, (time, height, width, 3)."""
    if item.ndim == 3:
        return item
    last = item if item.shape[3] in (1, 3) else np.moveaxis(item, 1, 3)
    if last.shape[3] == 1:
        return last[..., 0]
    scaled: Values = np.clip((last - style.low) / (style.high - style.low), 0.0, 1.0)
    return scaled


def _mosaic(frames: Values) -> Values:
    """Up to four frames, evenly spread, in one image with white between them."""
    chosen = frames[np.unique(np.linspace(0, len(frames) - 1, 4).astype(np.int64))]
    across = 2 if len(chosen) == 4 else len(chosen)
    blank = 1.0 if frames.ndim == 4 else np.nan
    borders = [(0, 0), (0, 1), (0, 1), (0, 0)][: frames.ndim]
    padded = [*np.pad(np.nan_to_num(chosen, nan=blank), borders, constant_values=blank)]
    lines = [np.hstack(padded[at : at + across]) for at in range(0, len(padded), across)]
    return np.vstack(lines)[:-1, :-1]


def draw(dataset: Dataset, path: str | os.PathLike[str], *, items: int = 4) -> tuple[int, bool]:
    """Draw a row for each item and a column for each modality; thumbnails, if there are any, first.

    Items are evenly spread over those for testing, or over all. See :class:`Form`; a column has one
    range of values, from the 1st to the 99th percentile. The ending of the name gives the format.
    Gives how many items there are, and whether no font here has some letters of their captions.
    """
    test = dataset.rows_of(Split.TEST)
    rows = test if len(test) else np.arange(len(dataset))
    rows = rows[np.linspace(0, len(rows) - 1, min(items, len(rows))).astype(np.int64)]
    figure = _figure(dataset, rows)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with write_errors(f"picture {path}"), atomic_write(Path(path)) as temporary:
            form = Path(path).suffix.removeprefix(".") or None
            figure.savefig(temporary, format=form, dpi=_DOTS_PER_INCH)
    return len(rows), any("missing from font" in str(one.message) for one in caught)


def _figure(dataset: Dataset, rows: NDArray[np.int64]) -> Figure:
    shown = {name: _items(column, rows) for name, column in dataset.columns.items()}
    styles = {
        name: style_of(column.modality, list(shown[name].values()))
        for name, column in dataset.columns.items()
    }
    shares = [_SQUARE if style.form is Form.IMAGE else 1.0 for style in styles.values()]
    first = 0 if dataset.picture is None else 1
    page = _Page(dataset, rows, [_SQUARE] * first + shares)
    if dataset.picture is not None:
        page.title(0, "picture", " x ".join(map(str, dataset.picture.shape[1:3])))
        for number, row in enumerate(rows):
            page.panel(number, 0).imshow(dataset.picture[row], cmap="gray", vmin=0, vmax=255)
    for column, (name, style) in enumerate(styles.items(), first):
        page.title(column, name, style.description)
        for number, row in enumerate(rows.tolist()):
            ax = page.panel(number, column)
            if row in shown[name]:
                _show(ax, shown[name][row], style)
            else:
                _annotate(ax, f"no {name}", _FAINT)
    return page.figure


def _items(column: Column, rows: NDArray[np.int64]) -> dict[int, Values]:
    """The values, without padding, of those rows that have the modality."""
    present = rows[column.present[rows]].tolist()
    return {row: column.take(torch.tensor([row]))[0][0].numpy() for row in present}


class _Page:
    """A grid of panels, laid out in inches, with titles above columns and captions below rows."""

    def __init__(self, dataset: Dataset, rows: NDArray[np.int64], shares: Sequence[float]) -> None:
        gaps = _GAP * (len(shares) - 1)
        columns = max(_PANEL_WIDTH * sum(shares), _NARROWEST - gaps - 2 * _MARGIN)
        self._widths = [columns * share / sum(shares) for share in shares]
        captions = _captions(dataset, rows, columns + gaps)
        lines = max(caption.count("\n") + 1 for caption in captions)
        self._pitch = _PANEL_HEIGHT + _TICKS + _LINE * lines + _GAP
        self._size = columns + gaps + 2 * _MARGIN, _TITLE + self._pitch * len(captions)
        self.figure = Figure(self._size)
        for row, caption in enumerate(captions):
            top = _TITLE + self._pitch * row + _PANEL_HEIGHT + _TICKS
            self._text(_MARGIN, top, caption, _SMALL)

    def panel(self, row: int, column: int) -> Axes:
        """Empty axes for an item, without ticks and frame; images go to the upper left."""
        (width, height), top = self._size, _TITLE + self._pitch * row
        place = self._left(column) / width, 1 - (top + _PANEL_HEIGHT) / height
        size = self._widths[column] / width, _PANEL_HEIGHT / height
        ax = self.figure.add_axes((*place, *size), anchor="NW", xticks=[], yticks=[])
        for side in ax.spines.values():
            side.set_visible(False)
        return ax

    def title(self, column: int, name: str, description: str) -> None:
        """Write above a column."""
        self._text(self._left(column), 0.08, name, 10, _INK)
        self._text(self._left(column), 0.28, description, 6.5)

    def _left(self, column: int) -> float:
        return _MARGIN + sum(self._widths[:column]) + _GAP * column

    def _text(self, left: float, top: float, text: str, size: float, colour: str = _FAINT) -> None:
        width, height = self._size
        known = {font.name for font in font_manager.fontManager.ttflist}
        self.figure.text(
            left / width,
            1 - top / height,
            text,
            fontsize=size,
            color=colour,
            va="top",
            family=["DejaVu Sans", *(font for font in _FONTS if font in known)],
            parse_math=False,
        )


def _captions(dataset: Dataset, rows: NDArray[np.int64], inches: float) -> list[str]:
    """For each item its name, split and label, and its text below."""
    texts = [""] * len(rows) if dataset.text is None else dataset.text[rows]
    captions = []
    for row, name, text in zip(rows.tolist(), dataset.ids[rows], texts, strict=True):
        words = [str(name), SPLITS[int(dataset.split[row])]]
        if dataset.label is not None and dataset.label[row] != NOT_GIVEN:
            words.append(f"label {dataset.label[row]}")
        lines = [_fitted(", ".join(words), inches, lines=1), _fitted(str(text), inches)]
        captions.append("\n".join(line for line in lines if line))
    return captions


def _fitted(text: str, inches: float, lines: int = _LINES) -> str:
    """As much of a text as fits into so many lines."""
    plain = " ".join(text.split())
    if not plain:
        return ""
    letters = int(inches * _FILLED * len(plain) / _width(plain))
    return "\n".join(wrap(plain, max(8, letters), max_lines=lines, placeholder=" ..."))


def _width(text: str) -> float:
    """Of a text in one line, in inches; letters of East Asia, which the font lacks, get room."""
    size = FontProperties(family="DejaVu Sans", size=_SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        width, *_ = text_to_path.get_text_width_height_descent(text, size, ismath=False)
    return (width + _SMALL * sum(east_asian_width(letter) in "WF" for letter in text)) / 72
