"""Indices of runs of values, without a loop over the runs."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray


def steps_of(
    starts: NDArray[np.int64], counts: NDArray[np.int64], stride: int = 1
) -> NDArray[np.int64]:
    """Where every step of some runs begins, run after run.

    >>> steps_of(np.array([10, 50]), np.array([3, 2]), 4).tolist()
    [10, 14, 18, 50, 54]
    """
    ends = np.cumsum(counts)
    within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
    found: NDArray[np.int64] = np.repeat(starts, counts) + within * stride
    return found


def gathered(values: NDArray[Any], starts: NDArray[np.int64], width: int) -> NDArray[Any]:
    """(n, width) values that begin at (n,) places of an array of one axis; these may overlap.

    Raises:
        IndexError: If they reach beyond it.

    >>> gathered(np.arange(10), np.array([7, 0]), 3).tolist()
    [[7, 8, 9], [0, 1, 2]]
    """
    size = values.itemsize
    # Every place at once as a view, so that whole rows are copied, and places are checked.
    views = max(0, len(values) - width + 1)
    every: NDArray[Any] = np.ndarray((views, width), values.dtype, values, strides=(size, size))
    found: NDArray[Any] = every[starts]
    return found


def blocks_of(sizes: NDArray[np.int64], most: int) -> Iterator[slice]:
    """Slices of rows whose sizes sum up to at most ``most``, or single rows that exceed it.

    >>> list(blocks_of(np.array([3, 3, 9, 1, 1]), 6))
    [slice(0, 2, None), slice(2, 3, None), slice(3, 5, None)]
    """
    ends, start = np.cumsum(sizes), 0
    while start < len(sizes):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield slice(start, stop)
        start = stop
