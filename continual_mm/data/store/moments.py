"""Mean and deviation of what passes by once."""

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.standardise import BLOCK_VALUES


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
