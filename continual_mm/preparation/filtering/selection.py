"""Which of N scored pairs are kept: a share of the best by one score or two, or all above one."""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from continual_mm.system.errors import InputError

By = Literal["hype", "cosine", "union", "intersection", "cascade"]
Scores = NDArray[np.float64]


def best_first(*scores: Scores) -> NDArray[np.int64]:
    """(N,) rows by falling score; by the next score where one is the same, then by row."""
    return np.lexsort(tuple(-each for each in reversed(scores)))


def ranks(scores: Scores) -> NDArray[np.int64]:
    """(N,) place of each row, 0 for the best; equal ones in the order of their rows.

    >>> ranks(np.array([0.5, 0.9, 0.5])).tolist()
    [1, 0, 2]
    """
    places = np.empty(len(scores), dtype=np.int64)
    places[best_first(scores)] = np.arange(len(scores))
    return places


def kept_count(share: float, pairs: int, place: object) -> int:
    """How many pairs a share of them is, rounded down; an InputError about ``place`` if none.

    >>> kept_count(0.29, 100, "mine.npz")
    29
    """
    if not 0 < share <= 1:
        problem = f"a share of {share:g} cannot be kept"
        raise InputError.at(place, problem, "give more than 0, at most 1")
    # 0.29 * 100 is a little less than 29.
    count = math.floor(round(share * pairs, 6))
    if count < 1:
        remedy = f"give at least {1 / pairs:.2g}" if pairs else "give pairs"
        raise InputError.at(place, f"of {pairs} pairs a share of {share:g} keeps none", remedy)
    return count


def best(by: By, count: int, *, hype: Scores | None, cosine: Scores) -> NDArray[np.bool_]:
    """(N,) which pairs are kept if ``count`` of them are.

    Args:
        by: ``hype`` or ``cosine``: the best by one score. ``union``: the best k by either, the k
            that makes ``count`` of them, ``intersection`` the best k by both. ``cascade``: the best
            by cosine of the best by HYPE, of which as large a share is left each time.
        count: How many, at most N.
        hype: (N,) HYPE's scores, for all but ``cosine``.
        cosine: (N,) similarities.
    """
    kept = np.zeros(len(cosine), dtype=np.bool_)
    if by == "cosine" or hype is None:
        kept[best_first(cosine)[:count]] = True
    elif by == "hype":
        kept[best_first(hype)[:count]] = True
    elif by == "cascade":
        first = best_first(hype)[: math.ceil(math.sqrt(count * len(hype)))]
        kept[first[best_first(cosine[first])[:count]]] = True
    else:
        places = ranks(hype), ranks(cosine)
        worst_place = np.minimum(*places) if by == "union" else np.maximum(*places)
        kept[best_first(-worst_place.astype(np.float64), hype)[:count]] = True
    return kept


def above(threshold: float, scores: Scores, place: object) -> NDArray[np.bool_]:
    """(N,) which scores are a threshold or more; an InputError about ``place`` if none is."""
    kept: NDArray[np.bool_] = scores >= threshold
    if not kept.any():
        problem = f"a threshold of {threshold:g} keeps no pair"
        remedy = f"the scores are {scores.min():.4g} to {scores.max():.4g}"
        raise InputError.at(place, problem, remedy)
    return kept
