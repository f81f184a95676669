"""Valid time steps, and features brought to mean 0 and spread 1, a few megabytes at a time."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.space.statistics import Statistics

BLOCK_VALUES = 1 << 21  # values handled at once: 16 MB in float64, whatever the size of the array

Moments = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Mean and standard deviation, (features,) each."""


def blank(steps: NDArray[np.float32], valid: NDArray[np.int64]) -> None:
    """Zero (rows, time, features) behind each row's ``valid`` steps, (rows,), in place."""
    for rows in _blocks(steps):
        padding = ~_mask(steps[rows], valid[rows])
        if padding.any():
            steps[rows][padding] = 0.0


def rows_not_finite(steps: NDArray[np.float32]) -> list[int]:
    """Rows of (rows, time, features) that hold a NaN or an infinity."""
    return [
        rows.start + int(row)
        for rows in _blocks(steps)
        for row in np.flatnonzero(~np.isfinite(steps[rows]).all(axis=(1, 2)))
    ]


def measured(
    steps: NDArray[np.float32], valid: NDArray[np.int64], training: NDArray[np.bool_]
) -> Statistics:
    """Measure the valid steps of the training rows in two passes, accumulated in float64.

    (rows, time, features) are finite, zero where not ``valid``; some training step is valid.
    """
    return Statistics.from_moments(*_moments(steps, np.where(training, valid, 0)))


class RunningStatistics:
    """Mean and standard deviation, in float64, of values that arrive a few at a time.

    Blocks are measured around their own means and merged (Chan, Golub and LeVeque, 1983), so that a
    small deviation from a large mean keeps its digits.
    """

    def __init__(self, features: int) -> None:
        self.features = features
        self._count = 0
        self._mean = np.zeros(features)
        self._squares = np.zeros(features)
        self._waiting: list[NDArray[np.floating]] = []
        self._values = 0

    def add(self, values: NDArray[np.floating]) -> None:
        """Take in (n, features) values, which must not be changed afterwards."""
        self._waiting.append(values)
        self._values += values.size
        if self._values >= BLOCK_VALUES:
            self._merge()

    def result(self) -> Moments | None:
        """Of all values so far; None if there were none."""
        self._merge()
        if not self._count:
            return None
        return self._mean, np.sqrt(self._squares / self._count)

    def _merge(self) -> None:
        block = np.concatenate([np.empty((0, self.features)), *self._waiting])
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


def weighted_moments(vectors: NDArray[np.floating], counts: NDArray[np.int64]) -> Moments | None:
    """Moments of (n, features) vectors that occur ``counts`` times each; None if none does."""
    occurring = np.flatnonzero(counts)
    if not len(occurring):
        return None
    height = max(1, BLOCK_VALUES // vectors.shape[1])
    blocks = [occurring[k : k + height] for k in range(0, len(occurring), height)]
    mean = sum(counts[rows] @ vectors[rows].astype(np.float64) for rows in blocks) / counts.sum()
    squares = sum(counts[rows] @ (vectors[rows] - mean) ** 2 for rows in blocks)
    return mean, np.sqrt(squares / counts.sum())


def standardise(
    steps: NDArray[np.float32], valid: NDArray[np.int64], statistics: Statistics
) -> None:
    """Bring features to mean 0 and standard deviation 1 in place; constant ones become 0.

    (rows, time, features) must be finite, and zero where not ``valid``, where they stay so.
    """
    for rows in _blocks(steps):
        block = steps[rows]
        scaled = (block - statistics.mean) * statistics.rate
        scaled[~_mask(block, valid[rows])] = 0.0
        # A value beyond float32 becomes an infinity here, which the caller looks for.
        with np.errstate(over="ignore"):
            block[...] = scaled


def _moments(steps: NDArray[np.float32], valid: NDArray[np.int64]) -> Moments:
    count = int(valid.sum())
    total = np.zeros(steps.shape[2])
    for rows in _blocks(steps):
        total += steps[rows][_mask(steps[rows], valid[rows])].sum(axis=0, dtype=np.float64)
    mean = total / count
    squares = np.zeros_like(mean)
    for rows in _blocks(steps):
        centred = steps[rows][_mask(steps[rows], valid[rows])] - mean
        squares += np.einsum("nf,nf->f", centred, centred)
    return mean, np.sqrt(squares / count)


def _mask(block: NDArray[Any], valid: NDArray[np.int64]) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = np.arange(block.shape[1]) < valid[:, None]
    return mask


def _blocks(steps: NDArray[Any]) -> Iterator[slice]:
    height = max(1, BLOCK_VALUES // (steps.shape[1] * steps.shape[2]))
    for start in range(0, len(steps), height):
        yield slice(start, start + height)
