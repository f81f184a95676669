"""Figures: recall by stage and pair, and transport plans of old pairs at stage ends."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from continual_mm.data.archive import Archive
from continual_mm.data.findings import Findings
from continual_mm.definitions.arrivals import Arrival
from continual_mm.definitions.modality import Pair
from continual_mm.evaluation.pairs import Gallery
from continual_mm.losses.transport import transport_plan
from continual_mm.runs.reporter import percent
from continual_mm.system.errors import InputError
from continual_mm.system.files import atomic_write

ITEMS = 64  # scored items in a plan, the first ones that have both modalities
EPSILON = 0.07
"""Entropic temperature, in units of one minus the cosine; that of the shipped strategies."""

_INK, _FAINT, _NOTHING = "#333333", "#6b6b6b", "#f2f2f2"
_DOTS_PER_INCH = 100
_DARK = 0.6  # share of the scale from which on numbers are written in white

PERCENT = PowerNorm(0.5, vmin=0, vmax=100)
"""The same colours for the same recall in every run, and low ones told apart."""

Plan = NDArray[np.float64]


def save_plans(
    folder: Path,
    arrivals: Sequence[Arrival],
    stage: int,
    gallery: Gallery,
    repeated: Mapping[Pair, Tensor] = MappingProxyType({}),
) -> dict[Pair, list[tuple[str, Plan]]]:
    """Save the plans of old pairs at the end of a 0-based stage; returns them, each with a name.

    If the folder has a pair's plan of the end of the stage before, that one comes first. Of
    ``repeated`` rows a modality is that of an earlier one: they are left out, since what matches
    two items alike is no mistake.
    """
    old = sorted({pair for arrival in arrivals[:-1] for pair in arrival.trained})
    now = {
        pair: plan_of(pair, gallery, repeated.get(pair))
        for pair in old
        if len(shared(pair, gallery))
    }
    earlier, present = (folder / f"after-stage-{number}.npz" for number in (stage, stage + 1))
    with atomic_write(present) as temporary, temporary.open("wb") as stream:
        arrays: dict[str, Any] = {str(pair): plan for pair, plan in now.items()}
        np.savez_compressed(stream, **arrays)
    before = _saved(earlier)
    shown: dict[Pair, list[tuple[str, Plan]]] = {}
    for pair, plan in now.items():
        first = before.get(str(pair))
        shown[pair] = [] if first is None else [(f"after stage {stage}", first)]
        shown[pair].append((f"after stage {stage + 1}", plan))
    return shown


def _saved(path: Path) -> dict[str, Plan]:
    """Pair -> plan in a file; none of what is missing or damaged, for it is a picture's alone."""
    if not path.exists():
        return {}
    with suppress(InputError), Archive(path, Findings(str(path))) as archive:
        saved = {name: archive.read(name) for name in archive.headers}
        return {name: plan for name, plan in saved.items() if plan is not None and plan.ndim == 2}
    return {}


def plan_of(pair: Pair, gallery: Gallery, without: Tensor | None = None) -> Plan:
    """(n, n) entropic plan between the embeddings of the first n items that have both sides."""
    items = shared(pair, gallery)
    items = (items if without is None else items[~torch.isin(items, without)])[:ITEMS]
    first, second = (
        normalize(embeddings[torch.searchsorted(rows, items).to(embeddings.device)].float().cpu())
        for name in (pair.first, pair.second)
        for embeddings, rows in [(gallery.embeddings[name], gallery.rows[name])]
    )
    return transport_plan(1 - first @ second.T, epsilon=EPSILON).double().numpy()


def shared(pair: Pair, gallery: Gallery) -> Tensor:
    """Dataset rows of the items that have both sides, ascending; none if a side has not arrived."""
    if not {pair.first, pair.second} <= gallery.rows.keys():
        return torch.empty(0, dtype=torch.int64)
    rows = gallery.rows[pair.first]
    return rows[torch.isin(rows, gallery.rows[pair.second])]


def recall_matrix(
    table: NDArray[np.float64],
    births: Mapping[Pair, int],
    roles: Mapping[Pair, str],
    *,
    split: str = "test",
) -> Figure:
    """Recall at 1, in percent, of every pair (column) after every stage (row).

    Its colours go from 0 to 100 % in all runs. The table is (stages, pairs) of fractions, NaN where
    a stage is not finished; births, 0-based, are in the order of the columns. Cells before them
    stay empty.
    """
    stages, pairs = table.shape
    wide, high = 0.9 + 1.6 * pairs, 1.3 + 0.7 * stages
    figure = Figure(figsize=(wide, high), dpi=_DOTS_PER_INCH)
    axes = figure.add_axes((0.8 / wide, 0.1 / high, 1.6 * pairs / wide, 0.7 * stages / high))
    born = np.arange(stages)[:, None] >= np.array(list(births.values()))[None, :]
    shown = np.where(born, 100 * table, np.nan)
    axes.imshow(np.nan_to_num(shown), cmap="Blues", norm=PERCENT, aspect="auto")
    for (stage, column), value in np.ndenumerate(shown):
        if np.isnan(value):
            axes.fill_between(
                (column - 0.5, column + 0.5), stage - 0.5, stage + 0.5, color=_NOTHING
            )
            continue
        ink = "white" if PERCENT(value) > _DARK else _INK
        axes.text(
            column, stage, percent(value / 100), ha="center", va="center", color=ink, fontsize=12
        )
    names = [f"{pair}\n{roles[pair]}\nsince stage {birth + 1}" for pair, birth in births.items()]
    axes.set_xticks(range(pairs), names, fontsize=10, color=_INK)
    axes.set_yticks(range(stages), [f"stage {n}" for n in range(1, stages + 1)], color=_INK)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.suptitle(f"R@1 in % on the {split} split after each stage", fontsize=13, color=_INK)
    return figure


def transport_plans(
    pair: Pair, plans: Sequence[tuple[str, NDArray[np.float64]]], *, split: str = "test"
) -> Figure:
    """(n, n) plans of mass 1 of one pair side by side, each with a name, on one scale.

    Both sides have the same items in the same order: what is diagonal is matched to itself.
    """
    figure = Figure(figsize=(0.9 + 3.5 * len(plans), 4.3), dpi=_DOTS_PER_INCH)
    grid = figure.subplots(1, len(plans), squeeze=False)[0]
    most = max(float((plan * len(plan)).max()) for _, plan in plans)
    scale = PowerNorm(0.5, vmin=0, vmax=most)  # so that little mass off the diagonal is seen too
    for axes, (name, plan) in zip(grid, plans, strict=True):
        seen = axes.imshow(plan * len(plan), cmap="Blues", norm=scale, aspect="equal")
        axes.set_title(f"{name}\n{100 * np.trace(plan):.1f} % on the diagonal", fontsize=14)
        axes.set_xlabel(f"{pair.second} of {len(plan)} {split} items", color=_FAINT, fontsize=11)
        axes.set_ylabel(f"{pair.first} of the same items", color=_FAINT, fontsize=11)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.tick_params(length=0)
        axes.spines[:].set_color(_FAINT)
    figure.subplots_adjust(left=0.06, right=0.9, top=0.8, bottom=0.07, wspace=0.12)
    bar = figure.colorbar(seen, ax=list(grid), fraction=0.03, pad=0.02)
    bar.set_label("share of a row's mass", color=_FAINT)
    figure.suptitle(f"{pair}: who is matched to whom", fontsize=15, fontweight="bold", color=_INK)
    return figure
