"""The statistics of the training items of a store, of what passes by once."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.statistics import BLOCK_VALUES
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


class Moments:
    """Means and squares around them, in float64.

    Values are gathered into blocks, each block is measured around its own mean, and the two are put
    together as Chan, Golub and LeVeque (1983) do, so that a small spread on a large mean is not
    lost.
    """

    def __init__(self, features: int) -> None:
        self._features = features
        self._count = 0
        self._mean = np.zeros(features)
        self._squares = np.zeros(features)
        self._waiting: list[NDArray[np.floating]] = []
        self._values = 0

    def add(self, values: NDArray[np.floating]) -> None:
        """Take in (n, features) values, which are kept for a while."""
        self._waiting.append(values)
        self._values += values.size
        if self._values >= BLOCK_VALUES:
            self._merge()

    def result(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Means and standard deviations, (features,) each; None if nothing was taken in."""
        self._merge()
        if not self._count:
            return None
        return self._mean, np.sqrt(self._squares / self._count)

    def _merge(self) -> None:
        block = np.concatenate([np.empty((0, self._features)), *self._waiting])
        self._waiting, self._values = [], 0
        if not len(block):
            return
        mean = block.mean(axis=0)
        block -= mean
        apart, total = mean - self._mean, self._count + len(block)
        self._squares += np.einsum("nf,nf->f", block, block)
        self._squares += apart**2 * (self._count * len(block) / total)
        self._mean += apart * (len(block) / total)
        self._count = total


def word_moments(
    vectors: NDArray[np.floating], counts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Means and standard deviations of word vectors that occur so many times each.

    Args:
        vectors: (words, features).
        counts: (words,) how often each occurs.

    Returns:
        (features,) each; None if no word occurs.
    """
    occurring = np.flatnonzero(counts)
    if not len(occurring):
        return None
    height = max(1, BLOCK_VALUES // vectors.shape[1])
    blocks = [occurring[k : k + height] for k in range(0, len(occurring), height)]
    mean = sum(counts[rows] @ vectors[rows].astype(np.float64) for rows in blocks) / counts.sum()
    squares = sum(counts[rows] @ (vectors[rows] - mean) ** 2 for rows in blocks)
    return mean, np.sqrt(squares / counts.sum())


Measure = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Means and standard deviations, (features,) each."""


class Measured:
    """What is measured item by item; windows are measured at the end, when all is written."""

    def __init__(self, modalities: Sequence[ModalityForm]) -> None:
        self._modalities = modalities
        self._moments = {
            one.name: Moments(one.modality.features) for one in modalities if one.source == "values"
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

    def values(self, modality: str) -> Measure | None:
        """Of a modality whose values are kept with the items."""
        return self._moments[modality].result()

    def words(self, modality: str, vectors: NDArray[np.floating]) -> Measure | None:
        """Of a modality whose words are looked up in (words, features) vectors."""
        return word_moments(vectors, self._counts[modality])


def measured_afterwards(tables: Tables, modality: ModalityForm) -> Measure | None:
    """Of the training items of a store that is written, whatever the modality's source.

    Of windows at most :data:`MOST_WINDOWS` are measured, evenly spread.
    """
    split = tables.items.scalars("split")
    rows = np.flatnonzero((split == 0) & tables.items.present(presence_column(modality)))
    if modality.source == "windows" and len(rows) > MOST_WINDOWS:
        rows = rows[np.arange(MOST_WINDOWS) * len(rows) // MOST_WINDOWS]
    source, features = tables.source(modality), modality.modality.features
    moments = Moments(features)
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        for block in blocks_of(source.counts(some) * features, BLOCK_VALUES):
            moments.add(source.read(some[block]))
    return moments.result()
