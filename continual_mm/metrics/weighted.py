"""Summaries of queries that count more or less: replicates of a bootstrap, all of them at once.

Every function takes (queries,) values and (replicates, queries) weights, which are counts, and
gives (replicates,). Weights of one give the plain summary. A query whose value is NaN is left out;
an infinite rank is one that is never found.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def weighted_mean(values: Floats, weights: Floats) -> Floats:
    """Mean; NaN in a replicate that drew nothing.

    >>> weighted_mean(np.array([1.0, 0.0]), np.array([[1.0, 1.0], [0.0, 2.0], [0.0, 0.0]]))
    array([0.5, 0. , nan])
    """
    known = ~np.isnan(values)
    return _ratio(weights[:, known] @ values[known], weights[:, known].sum(axis=1))


def weighted_recall_at(ranks: Floats, weights: Floats, k: int) -> Floats:
    """Share of queries whose rank, counted from 0, is below k; without a rank they are missed."""
    return weighted_mean((ranks < k).astype(np.float64), weights)


def weighted_median_rank(ranks: Floats, weights: Floats) -> Floats:
    """Median of the ranks counted from 1, of a sample in which each is there as often as it counts.

    >>> weighted_median_rank(np.array([0.0, 4.0, 9.0]), np.array([[1.0, 1, 1], [0, 2, 2]]))
    array([5. , 7.5])
    """
    known = np.flatnonzero(~np.isnan(ranks))
    order = known[np.argsort(ranks[known], kind="stable")]
    counts = weights[:, order].cumsum(axis=1)
    found = np.full(len(weights), np.nan)
    if not len(order):
        return found
    total = counts[:, -1]
    drawn = total > 0
    # The two middle places of the sample, the same one if their number is odd.
    lower = (counts <= np.floor((total - 1) / 2)[:, None]).sum(axis=1)[drawn]
    upper = (counts <= np.floor(total / 2)[:, None]).sum(axis=1)[drawn]
    ascending = ranks[order]
    found[drawn] = (ascending[lower] + ascending[upper]) / 2 + 1
    return found


def weighted_listed_recall_at(first: Floats, last: Floats, weights: Floats, k: int) -> Floats:
    """Ranks below k per query, where each query lists all its ranks from first to last.

    Above 1 where ties list more than one; without a rank a query is missed.
    """
    listed = np.clip(np.minimum(last, k - 1) - first + 1, 0, None)
    return weighted_mean(np.where(np.isnan(listed), 0.0, listed), weights)


def weighted_listed_median_rank(first: Floats, last: Floats, weights: Floats) -> Floats:
    """Median of all ranks listed, counted from 1; queries without a rank list none.

    >>> weighted_listed_median_rank(np.array([0.0, 0.0]), np.array([0.0, 2.0]), np.ones((1, 2)))
    array([1.5])
    """
    known = ~np.isnan(first)
    if not known.any():
        return np.full(len(weights), np.nan)
    begins, ends = (each[known].astype(np.int64) for each in (first, last + 1))
    changes = np.zeros((int(ends.max()) + 1, len(weights)))
    np.add.at(changes, begins, weights[:, known].T)
    np.subtract.at(changes, ends, weights[:, known].T)
    counts = changes.cumsum(axis=0).cumsum(axis=0)
    # The two middle places of the list, the same one if it is of odd length.
    middle = [np.floor((counts[-1] - less) / 2) for less in (1, 0)]
    lower, upper = ((counts <= place).sum(axis=0) for place in middle)
    return np.where(counts[-1] > 0, (lower + upper) / 2 + 1, np.nan)


def mean_of_groups(values: Floats, groups: Floats, weights: Floats) -> Floats:
    """Mean over groups of the weighted mean inside each; groups that were not drawn are left out.

    Args:
        values: (queries,).
        groups: (queries,) a number for the group of each query, such as its class.
        weights: (replicates, queries).
    """
    names = np.unique(groups)
    member = (groups == names[:, None]).astype(np.float64)
    known = ~np.isnan(values)
    sums = (weights[:, known] * values[known]) @ member[:, known].T
    means = _ratio(sums, weights[:, known] @ member[:, known].T)
    present = ~np.isnan(means)
    return _ratio(np.where(present, means, 0.0).sum(axis=1), present.sum(axis=1).astype(float))


def _ratio(sums: Floats, counts: Floats) -> Floats:
    ratio = np.full(counts.shape, np.nan)
    np.divide(sums, counts, out=ratio, where=counts > 0)
    return ratio
