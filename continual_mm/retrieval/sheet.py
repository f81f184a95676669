"""A contact sheet: a query, and thumbnails of what it found."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from continual_mm.comparison.figure import FAINT, INK, check_picture, save
from continual_mm.data.dataset import Dataset
from continual_mm.retrieval.retriever import Hit

ACROSS = 5


def draw_sheet(path: Path, asked: str, hits: Sequence[Hit], dataset: Dataset) -> None:
    """Write hits in order, each with its thumbnail where there is one, its score and caption."""
    check_picture(path)
    lines = math.ceil(len(hits) / ACROSS)
    figure = Figure(figsize=(2.1 * ACROSS, 0.9 + 2.9 * lines), layout="constrained")
    grid = figure.subplots(lines, ACROSS, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, hit in zip(grid.flat, hits, strict=False):
        if dataset.picture is not None:
            axes.imshow(dataset.picture[hit.row], cmap="gray", interpolation="nearest")
        axes.set_title(f"{hit.rank}. {hit.id}  {hit.score:.2f}", fontsize=9, color=INK)
        told = textwrap.fill(hit.text, 28, max_lines=5, placeholder=" ...")
        axes.text(
            0.5, -0.04, told, transform=axes.transAxes, ha="center", va="top", fontsize=8,
            color=FAINT, wrap=True,
        )  # fmt: skip
    figure.suptitle(asked, fontsize=12, color=INK)
    save(figure, path)
