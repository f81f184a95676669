"""Paired bootstrap over queries and seeds: how far a score could be off by chance.

Draw the weights once and apply them to every strategy: the difference of two strategies is then
taken over the same queries and seeds, so that what is hard for both cancels.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.uint16]
"""(replicates, queries) how often each query occurs: about once, and never 65,536 times."""

_VALUES_AT_ONCE = 1 << 22
"""Weights that are in float64 at once: 32 MB of them."""


def resample_weights(
    queries: int, seeds: int, *, replicates: int, generator: np.random.Generator
) -> tuple[Counts, Floats]:
    """Draw how often each query, and each seed, occurs in each replicate.

    Both are drawn with replacement, independently of each other, as many as there are; so counts
    are 1 on average. A single seed occurs once in every replicate and adds no variance. A few
    are a coarse sample: with S seeds the variance between them comes out (S-1)/S too small, a
    third at three seeds.

    Args:
        queries: Number of queries, over all cells.
        seeds: Number of seeds.
        replicates: How often to resample; 2000 settles a 95 % interval.
        generator: The same state gives the same weights.

    Returns:
        The counts (replicates, queries) and (replicates, seeds).

    >>> generator = np.random.default_rng(0)
    >>> query_weights, seed_weights = resample_weights(3, 1, replicates=2, generator=generator)
    >>> query_weights.sum(axis=1).tolist(), seed_weights.tolist()
    ([3, 3], [[1.0], [1.0]])
    """
    for name, number in (("queries", queries), ("seeds", seeds), ("replicates", replicates)):
        if number < 1:
            raise ValueError(f"{name}: {number}; at least 1 is needed")
    drawn = np.empty((replicates, queries), dtype=np.uint16)
    for some in blocks(drawn):
        drawn[some] = _counts(queries, some.stop - some.start, generator)
    return drawn, _counts(seeds, replicates, generator).astype(np.float64)


def blocks(weights: Counts | Floats) -> Iterator[slice]:
    """Replicates that are computed at once, so that few weights are in float64."""
    replicates, queries = weights.shape
    step = max(1, _VALUES_AT_ONCE // max(1, queries))
    ends = (*range(0, replicates, step), replicates)
    return (slice(*both) for both in pairwise(ends))


def joined(found: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(n,) the lowest place of all that are joined: those joined already, and those of one number.

    >>> joined(np.array([0, 0, 2, 3, 4]), np.array([7, 8, 8, 9, 9])).tolist()
    [0, 0, 0, 3, 3]
    """
    which = np.unique(numbers, return_inverse=True)[1].reshape(-1)
    while True:
        lowest = np.full(int(which.max(initial=-1)) + 1, len(found))
        np.minimum.at(lowest, which, found)
        least = found.copy()
        np.minimum.at(least, found, lowest[which])
        together: npt.NDArray[np.int64] = least[found]
        if np.array_equal(together, found):
            return together
        found = together


def weighted_recall(
    hits: npt.ArrayLike, query_weights: Counts | Floats, seed_weights: Floats
) -> Floats:
    """Recall of every cell in every replicate.

    The weighted mean of the hits a cell has. All seeds normally share a cell's queries, and this
    is then the mean over seeds of the recall too; a seed that lacks a cell is left out of it.
    Counts of hits are summed exactly, so equal hits have equal recalls to the last digit.

    Args:
        hits: (seeds, cells, queries): 1 if found, 0 if missed, or any score of a query; NaN for
            queries that a cell does not have. A cell is whatever is reported on its own, such as
            a direction of a pair after a stage.
        query_weights: (replicates, queries), from :func:`resample_weights`.
        seed_weights: (replicates, seeds), from the same call.

    Returns:
        (replicates, cells), in [0, 1] for hits; NaN where a replicate drew none of a cell's
        queries.

    >>> hits = np.array([[[1, 0, np.nan], [0, 1, 1]]])
    >>> weighted_recall(hits, np.array([[1, 1, 1], [2, 0, 1]]), np.ones((2, 1)))
    array([[0.5       , 0.66666667],
           [1.        , 0.33333333]])
    """
    table = np.asarray(hits, dtype=np.float64)
    replicates = len(query_weights)
    if table.ndim != 3 or (query_weights.shape, seed_weights.shape) != (
        (replicates, table.shape[2]),
        (replicates, table.shape[0]),
    ):
        raise ValueError(
            f"hits of shape {table.shape} with weights of shapes {query_weights.shape} and "
            f"{seed_weights.shape}; they must be (seeds, cells, queries), (replicates, queries) "
            "and (replicates, seeds)"
        )
    present = ~np.isnan(table)
    found = _weighted_sum(np.where(present, table, 0.0), query_weights, seed_weights)
    asked = _weighted_sum(present.astype(np.float64), query_weights, seed_weights)
    recall = np.full(asked.shape, np.nan)
    np.divide(found, asked, out=recall, where=asked > 0)
    return recall


def interval(samples: npt.ArrayLike, *, level: float = 0.95) -> tuple[Floats, Floats]:
    """Percentile interval of bootstrap replicates, leaving NaN out.

    Args:
        samples: (replicates, ...), such as recalls or differences of two strategies' recalls.
        level: Coverage aimed at, in (0, 1); as much is cut off below as above.

    Returns:
        The lower and the upper ends, (...); NaN where every replicate is.

    >>> low, high = interval(np.arange(101.0), level=0.5)
    >>> float(low), float(high)
    (25.0, 75.0)
    """
    values = np.asarray(samples, dtype=np.float64)
    if not 0 < level < 1:
        raise ValueError(f"level {level} must lie between 0 and 1, such as 0.95")
    if not values.ndim or not len(values):
        raise ValueError(f"samples of shape {values.shape}; at least one replicate is needed")
    void = np.isnan(values).all(axis=0)
    ends = np.nanquantile(np.where(void, 0.0, values), [(1 - level) / 2, (1 + level) / 2], axis=0)
    low, high = np.where(void, np.nan, ends)
    return low, high


def _counts(size: int, replicates: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    return generator.multinomial(size, np.full(size, 1 / size), size=replicates)


def _weighted_sum(table: Floats, query_weights: Counts | Floats, seed_weights: Floats) -> Floats:
    """Sum (seeds, cells, queries) over queries and seeds into (replicates, cells).

    Queries go first and in matrix products, so that nothing larger than the weights and
    (replicates, seeds, cells) is ever held.
    """
    seeds, cells, queries = table.shape
    flat = table.reshape(seeds * cells, queries).T
    over_queries = [query_weights[some].astype(np.float64) @ flat for some in blocks(query_weights)]
    per_seed = np.concatenate(over_queries).reshape(-1, seeds, cells)
    return np.asarray(np.einsum("rs,rsc->rc", seed_weights, per_seed))
