"""A modality whose features stay on the disk until rows of it are taken."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from continual_mm.data.standardise import BLOCK_VALUES, Statistics
from continual_mm.data.store.ragged import blocks_of, steps_of
from continual_mm.data.store.sources import Source
from continual_mm.modality import Modality

_ROWS = 1 << 20
"""Rows that are looked at at once."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredColumn:
    """One modality of every item, in a store.

    Attributes:
        modality: Name, kind, and shape of one item.
        present: (items,) whether an item has the modality.
        source: Where its steps come from.
        statistics: What they are standardised by; None leaves them alone.
    """

    modality: Modality
    present: NDArray[np.bool_]
    source: Source
    statistics: Statistics | None = None

    @property
    def valid(self) -> NDArray[np.int64]:
        """(items,) steps that carry signal; 0 for an item that lacks the modality."""
        valid = np.zeros(len(self.present), dtype=np.int64)
        for rows in self.rows():
            valid[rows] = self.source.counts(rows)
        return valid

    def rows(self) -> Iterator[NDArray[np.int64]]:
        """The items that have the modality, ascending, about a million at once."""
        for start in range(0, len(self.present), _ROWS):
            yield start + np.flatnonzero(self.present[start : start + _ROWS])

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features of some rows, all of which have the modality.

        Args:
            rows: (n,) rows of the dataset.

        Returns:
            (n, ...) float32, cut behind the longest of them, and (n,) valid steps; None for a
            vector.
        """
        # Neighbours on the disk are read one after the other.
        order = np.argsort(rows.numpy(), kind="stable")
        chosen = rows.numpy()[order]
        counts = self.source.counts(chosen)
        shape, features = self.modality.shape, self.modality.features
        has_length = self.modality.kind.has_length
        time = int(counts.max(initial=0)) if has_length else 1
        # Every value of vectors is written below, and only they have no padding.
        begun = np.zeros if has_length else np.empty
        taken = begun((len(chosen), time, features), dtype=np.float32)
        steps = taken.reshape(-1, features)
        for block in blocks_of(counts * features, BLOCK_VALUES):
            places = steps_of(order[block] * time, counts[block])
            steps[places] = self._standardised(self.source.read(chosen[block]))
        if not has_length:
            return torch.from_numpy(taken.reshape(len(chosen), *shape)), None
        lengths = np.empty_like(counts)
        lengths[order] = counts
        values = torch.from_numpy(taken.reshape(len(chosen), time, *shape[1:]))
        return values, torch.from_numpy(lengths)

    def _standardised(self, steps: NDArray[Any]) -> NDArray[np.float32]:
        # torch turns halves into floats twenty times as fast as numpy does.
        values = torch.from_numpy(steps)
        if self.statistics is not None:
            # Floats get float64, so that they are bit for bit those of the same arrays in memory.
            # Halves are 8,192 times as coarse as float32, in which all is done four times as fast.
            wide = torch.float32 if values.dtype == torch.float16 else torch.float64
            mean = torch.from_numpy(self.statistics.mean).to(wide)
            rate = torch.from_numpy(self.statistics.rate).to(wide)
            values = values.to(wide).sub_(mean).mul_(rate)
        standardised: NDArray[np.float32] = values.float().numpy()
        return standardised
