"""What happens to earlier pairs inside a stage, which its end does not show.

Scores often fall steeply when a new stage begins and recover before it ends: the stability gap.
Whoever looks at stage ends only sees what is left of it.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def worst_score(within: npt.ArrayLike) -> Floats:
    """Lowest score of every pair during a stage, its end included.

    The lowest of several noisy scores lies below the true one, and the more so the more often one
    looks: compare only stages that were looked at equally often.

    Args:
        within: (moments, pairs) scores during the stage, higher is better, its end last.

    Returns:
        (pairs,); NaN where a score is, and everywhere if only the end is known.

    Raises:
        ValueError: If the shape does not fit.

    References:
        De Lange, van de Ven and Tuytelaars (arXiv 2205.13452): min-ACC, per pair.

    >>> worst_score([[0.2, 0.5], [0.4, 0.6]])
    array([0.2, 0.5])
    """
    table = np.asarray(within, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"scores of shape {table.shape}; they must be (moments, pairs)")
    if len(table) < 2:
        return np.full(table.shape[1], np.nan)
    lowest: Floats = table.min(axis=0)
    return lowest


def stability_gap(before: npt.ArrayLike, within: npt.ArrayLike) -> Floats:
    """How far every pair fell during a stage, at its worst, whether it recovered or not.

    At least the loss from one stage's end to the next. Negative only for a pair that was better
    all the time.

    Args:
        before: (pairs,) scores at the end of the stage before.
        within: (moments, pairs) scores during the stage, higher is better, its end last.

    Returns:
        (pairs,) in units of the score; NaN where one is, and everywhere if only the end is known.

    Raises:
        ValueError: If shapes do not fit.

    >>> stability_gap([0.5, 0.5], [[0.25, 0.5], [0.375, 0.75]])
    array([0.25, 0.  ])
    """
    start, worst = np.asarray(before, dtype=np.float64), worst_score(within)
    if start.shape != worst.shape:
        raise ValueError(f"{start.shape} scores before a stage with {worst.shape} during it")
    gap: Floats = start - worst
    return gap
