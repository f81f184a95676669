"""The statistics of the training items of a store, of what passes by once."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.statistics import BLOCK_VALUES, Moments, RunningStatistics, weighted_moments
from continual_mm.data.store.form import ModalityForm
from continual_mm.data.store.opening import Tables, presence_column
from continual_mm.data.store.table import blocks_of

_ROWS = 1 << 20
"""Items whose counts are in memory at once."""

MOST_WINDOWS = 1 << 18
"""Training items that are measured where items are windows.

They overlap, so that there may be a hundred times as many as there is data; the mean of so many is
wrong by about a five-hundredth of a deviation.
"""


class Measured:
    """What is measured item by item; windows are measured at the end, when all is written."""

    def __init__(self, modalities: Sequence[ModalityForm]) -> None:
        self._modalities = modalities
        self._moments = {
            one.name: RunningStatistics(one.modality.features)
            for one in modalities
            if one.source == "values"
        }
        self._counts = {
            one.name: np.zeros(one.words, dtype=np.int64)
            for one in modalities
            if one.source == "words"
        }

    def add(self, row: Mapping[str, Any]) -> None:
        """Take in a training item."""
        for one in self._modalities:
            if row.get(one.name) is None:
                continue
            if one.source == "words":
                np.add.at(self._counts[one.name], row[one.name], 1)
            else:
                steps = row[one.name].reshape(-1, one.modality.features)
                self._moments[one.name].add(steps)

    def values(self, modality: str) -> Moments | None:
        """Of a modality whose values are kept with the items."""
        return self._moments[modality].result()

    def words(self, modality: str, vectors: NDArray[np.floating]) -> Moments | None:
        """Of a modality whose words are looked up in (words, features) vectors."""
        return weighted_moments(vectors, self._counts[modality])


def measured_afterwards(tables: Tables, modality: ModalityForm) -> Moments | None:
    """Of the training items of a store that is written, whatever the modality's source.

    Of windows at most :data:`MOST_WINDOWS` are measured, evenly spread.
    """
    split = tables.items.scalars("split")
    rows = np.flatnonzero((split == 0) & tables.items.present(presence_column(modality)))
    if modality.source == "windows" and len(rows) > MOST_WINDOWS:
        rows = rows[np.arange(MOST_WINDOWS) * len(rows) // MOST_WINDOWS]
    source, features = tables.source(modality), modality.modality.features
    moments = RunningStatistics(features)
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        for block in blocks_of(source.counts(some) * features, BLOCK_VALUES):
            moments.add(source.read(some[block]))
    return moments.result()
