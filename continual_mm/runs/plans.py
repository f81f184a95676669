"""The transport plans of old pairs at stage ends, kept to stand beside those of the next."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from continual_mm.arrivals import Arrival
from continual_mm.learning.evaluation import Gallery
from continual_mm.losses.transport import transport_plan
from continual_mm.modality import Pair
from continual_mm.runs.files import written

ITEMS = 64
"""Test items in a plan, the first ones that have both modalities."""
EPSILON = 0.07
"""Entropic temperature, in units of one minus the cosine; that of the shipped strategies."""

Plan = NDArray[np.float64]


class Plans:
    """Plans by pair and stage, in a folder, so that a run that goes on finds the earlier ones.

    Args:
        folder: Where they lie.
        arrivals: The stages of the scenario; pairs trained before the last one are old.
    """

    def __init__(self, folder: Path, arrivals: Sequence[Arrival]) -> None:
        self._folder = folder
        self._old = {pair for arrival in arrivals[:-1] for pair in arrival.trained}

    def add(self, stage: int, gallery: Gallery) -> dict[Pair, list[tuple[str, Plan]]]:
        """Keep the plans at the end of a 0-based stage.

        Returns:
            Old pair measured now -> the plan at the end of the stage before, if there is one, and
            today's, each with a name.
        """
        now = {
            pair: plan_of(pair, gallery) for pair in sorted(self._old) if len(shared(pair, gallery))
        }
        with written(self._file(stage)) as temporary, temporary.open("wb") as stream:
            arrays: dict[str, Any] = {str(pair): plan for pair, plan in now.items()}
            np.savez_compressed(stream, **arrays)
        before = self._read(stage - 1)
        shown: dict[Pair, list[tuple[str, Plan]]] = {}
        for pair, plan in now.items():
            earlier = before.get(str(pair))
            shown[pair] = [] if earlier is None else [(f"after stage {stage}", earlier)]
            shown[pair].append((f"after stage {stage + 1}", plan))
        return shown

    def _file(self, stage: int) -> Path:
        return self._folder / f"after-stage-{stage + 1}.npz"

    def _read(self, stage: int) -> dict[str, Plan]:
        file = self._file(stage)
        if not file.exists():
            return {}
        with np.load(file, allow_pickle=False) as plans:
            return dict(plans)


def plan_of(pair: Pair, gallery: Gallery) -> Plan:
    """(n, n) entropic plan between the embeddings of the first n items that have both sides."""
    items = shared(pair, gallery)[:ITEMS]
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
