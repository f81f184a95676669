"""The statistics of the training items of a store, gathered while they are written."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.standardise import BLOCK_VALUES
from continual_mm.data.store.form import ModalityForm
from continual_mm.data.store.moments import Moments, word_moments
from continual_mm.data.store.ragged import blocks_of
from continual_mm.data.store.source import Source

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


def measured_afterwards(source: Source, rows: NDArray[np.int64], features: int) -> Measure | None:
    """Of a source's steps in some rows."""
    moments = Moments(features)
    for block in blocks_of(source.counts(rows) * features, BLOCK_VALUES):
        moments.add(source.read(rows[block]))
    return moments.result()
