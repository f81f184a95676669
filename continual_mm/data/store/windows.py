"""Windows that are cut out of recordings: as they are, or the largest values within."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from continual_mm.data.statistics import BLOCK_VALUES
from continual_mm.data.store.table import StoredTable, blocks_of


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """Where in which recording the windows of a modality lie.

    Attributes:
        items: The table of items.
        column: The modality's name, with which the columns begin.
        parts: How many parts of a recording a window has.
    """

    items: StoredTable
    column: str
    parts: int

    def of(
        self, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(n,) recordings, and (n, parts) first steps and how many follow."""
        recordings = self.items.steps(f"{self.column}_recording", rows, 1)[:, 0]
        begin, end = (
            self.items.steps(f"{self.column}_{bound}", rows, self.parts).astype(np.int64)
            for bound in ("begin", "end")
        )
        return recordings, begin, end - begin


@dataclass(frozen=True, slots=True, eq=False)
class CutWindows:
    """The windows themselves.

    Attributes:
        bounds: Where they lie.
        recordings: The table of recordings.
        part: Its column that is cut.
        features: Per step.
        longest: Steps behind which a window is cut.
    """

    bounds: Bounds
    recordings: StoredTable
    part: str
    features: int
    longest: int

    def counts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) how many steps each has."""
        return np.minimum(self.bounds.of(rows)[2][:, 0], self.longest)

    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(steps, features) floats, row after row."""
        recordings, begin, count = self.bounds.of(rows)
        window = begin[:, 0], np.minimum(count[:, 0], self.longest)
        return self.recordings.steps(self.part, recordings, self.features, window)


@dataclass(frozen=True, slots=True, eq=False)
class LargestValues:
    """The largest value of each feature within a window, each part then brought to length 1.

    Attributes:
        bounds: Where the windows lie.
        recordings: The table of recordings.
        parts: Its columns that are looked at -> features per step.
    """

    bounds: Bounds
    recordings: StoredTable
    parts: Mapping[str, int]

    def counts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) ones: the window has become a vector."""
        return np.ones_like(rows)

    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(n, features) floats."""
        recordings, begin, count = self.bounds.of(rows)
        pooled = [
            self._part(part, features, recordings, begin[:, k], count[:, k])
            for k, (part, features) in enumerate(self.parts.items())
        ]
        return np.concatenate(pooled, axis=1)

    def _part(
        self,
        part: str,
        features: int,
        recordings: NDArray[np.int64],
        begin: NDArray[np.int64],
        count: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        found = np.zeros((len(recordings), features), dtype=np.float32)
        some = np.flatnonzero(count)
        for block in blocks_of(count[some] * features, BLOCK_VALUES):
            rows = some[block]
            window = begin[rows], count[rows]
            steps = self.recordings.steps(part, recordings[rows], features, window)
            found[rows] = largest(torch.from_numpy(steps).float(), torch.from_numpy(count[rows]))
        length = np.linalg.norm(found, axis=1, keepdims=True)
        np.divide(found, length, out=found, where=length > 0)
        return found


def largest(steps: Tensor, count: Tensor) -> NDArray[np.float32]:
    """(windows, features) the largest values of (steps, features), window after window.

    Some fifteen times as fast as ``numpy.maximum.reduceat``.
    """
    window = torch.repeat_interleave(torch.arange(len(count)), count)
    begun = steps[count.cumsum(0) - count]
    found = begun.scatter_reduce_(0, window[:, None].expand_as(steps), steps, "amax")
    values: NDArray[np.float32] = found.numpy()
    return values
