"""A picture of a few items: what each of them shows in every modality."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from unicodedata import east_asian_width

import numpy as np
import torch
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from numpy.typing import NDArray

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.cells import FAINT, INK, SQUARE, bare, look_of, say, show
from continual_mm.data.dataset import Dataset, Split
from continual_mm.modality import SPLITS

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
        RefusedError: If the file cannot be written.
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
            raise RefusedError(Complaint(f"picture {path}", problem)) from error
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
