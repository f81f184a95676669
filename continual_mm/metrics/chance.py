"""What a random order of answers scores in retrieval."""

import numpy as np
import numpy.typing as npt

_ROUNDING = 1e-9  # by which sums of shares are off, at most


def chance_recall_at(k: int, items: int, right: float = 1.0) -> float:
    """Recall at ``k`` of a random order of some items, of which ``right`` are right on average.

    >>> round(chance_recall_at(10, 400), 6)
    0.025
    """
    return float(1 - _wrong_first(items, right)[min(k, items)])


def chance_reciprocal_rank(items: int, right: float = 1.0) -> float:
    """Mean reciprocal rank of a random order; arguments as of :func:`chance_recall_at`.

    >>> round(chance_reciprocal_rank(2), 6)
    0.75
    """
    at_least = _wrong_first(items, right)
    return float(((at_least[:-1] - at_least[1:]) / np.arange(1, items + 1)).sum())


def chance_median_rank(items: int, right: float = 1.0) -> float:
    """Median rank, counted from 1, of a random order; arguments as of :func:`chance_recall_at`.

    >>> chance_median_rank(5), chance_median_rank(4)
    (3.0, 2.5)
    """
    found_by = 1 - _wrong_first(items, right)
    # The two middle ones of equally many searches as there are places to find it at.
    lower = np.searchsorted(found_by, 0.5 - _ROUNDING)
    upper = np.searchsorted(found_by, 0.5 + _ROUNDING)
    return float(lower + upper) / 2


def _wrong_first(items: int, right: float) -> npt.NDArray[np.float64]:
    """(1 + items,) probability that the first r answers of a random order are all wrong."""
    drawn = np.arange(items)
    left = np.clip((items - right - drawn) / (items - drawn), 0.0, 1.0)
    return np.concatenate([[1.0], np.cumprod(left)])
