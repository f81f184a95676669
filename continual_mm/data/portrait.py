"""A picture of a few items: what each of them shows in every modality."""

import os
from pathlib import Path
from textwrap import shorten

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from continual_mm.data.dataset import Dataset, Split

_DOTS_PER_INCH = 120
_CELL = 2.6, 1.7
"""Width and height of what one item shows in one modality, in inches."""
_INK, _FAINT = "#333333", "#6b6b6b"
_CAPTION = 80
"""Characters of a caption that are shown."""


def draw(dataset: Dataset, path: str | os.PathLike[str], *, items: int = 4) -> None:
    """Write a PNG with a row for each item and a column for each modality.

    A vector is drawn as a line over its features; everything with time as an image, time from left
    to right, features from bottom to top; frames that are pictures as four of them.
    Thumbnails come first where the dataset has them. All rows of a column share one range of
    values.

    Args:
        dataset: As it is in the file, not standardised.
        path: Where to; an existing file is replaced.
        items: Number of test items, evenly spread; of any items if there is none for testing.
    """
    test = dataset.rows_of(Split.TEST)
    rows = test if len(test) else np.arange(len(dataset))
    rows = rows[np.linspace(0, len(rows) - 1, min(items, len(rows))).astype(np.int64)]
    pictures = dataset.picture is not None
    names = [*(["picture"] if pictures else []), *dataset.columns]
    width, height = _CELL
    figure = Figure(
        (width * len(names), height * len(rows) + 0.5), dpi=_DOTS_PER_INCH, layout="constrained"
    )
    axes = figure.subplots(len(rows), len(names), squeeze=False)
    for column, name in enumerate(names):
        axes[0, column].set_title(name, fontsize=10, color=_INK)
        if pictures and column == 0:
            for row, ax in zip(rows, axes[:, 0], strict=True):
                _show_picture(ax, dataset, int(row))
        else:
            _show_modality(list(axes[:, column]), dataset, name, rows)
    ids = dataset.ids[rows]
    texts = [""] * len(rows) if dataset.text is None else dataset.text[rows]
    for name, text, ax in zip(ids, texts, axes[:, 0], strict=True):
        caption = "\n" + shorten(str(text), _CAPTION) if text else ""
        # At the left edge of the first column, so that long captions run over the others.
        ax.set_xlabel(f"{name}{caption}", fontsize=7, color=_FAINT, loc="left")
    figure.savefig(Path(path))


def _show_picture(ax: Axes, dataset: Dataset, row: int) -> None:
    if dataset.picture is not None:
        ax.imshow(dataset.picture[row], cmap="gray")
    _bare(ax)


def _show_modality(axes: list[Axes], dataset: Dataset, name: str, rows: NDArray[np.int64]) -> None:
    column = dataset.columns[name]
    shown = {int(row): _item(dataset, name, int(row)) for row in rows if column.present[row]}
    low = min((float(values.min()) for values in shown.values()), default=0.0)
    high = max((float(values.max()) for values in shown.values()), default=1.0)
    for row, ax in zip(rows, axes, strict=True):
        values = shown.get(int(row))
        if values is None:
            ax.text(0.5, 0.5, f"no {name}", ha="center", va="center", fontsize=9, color=_FAINT)
        elif not column.modality.kind.has_length:
            ax.plot(values, color=_INK, linewidth=0.8, drawstyle="steps-mid")
            ax.set_ylim(low, high if high > low else low + 1.0)
        elif values.ndim == 3:
            ax.imshow(_mosaic(values), aspect="equal", vmin=low, vmax=high, cmap="gray")
        else:
            steps = values.reshape(len(values), -1)
            ax.imshow(steps.T, aspect="auto", origin="lower", vmin=low, vmax=high, cmap="magma")
        _bare(ax)


def _mosaic(film: NDArray[np.float32]) -> NDArray[np.float32]:
    """First, last and two between of (time, height, width) frames, in two rows."""
    first, second, third, last = film[np.linspace(0, len(film) - 1, 4).astype(np.int64)]
    mosaic: NDArray[np.float32] = np.block([[first, second], [third, last]])
    return mosaic


def _item(dataset: Dataset, name: str, row: int) -> NDArray[np.float32]:
    values, _ = dataset.columns[name].take(torch.tensor([row]))
    item: NDArray[np.float32] = values[0].numpy()
    return item


def _bare(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ax.spines.values():
        side.set_visible(False)
