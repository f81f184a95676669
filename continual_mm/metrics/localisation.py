"""Temporal localisation of the steps of a task: seconds chosen from scores, and their recall."""

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Truths = npt.NDArray[np.bool_]


def ordered_seconds(scores: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The second of each step if steps follow one another, each for exactly one second.

    Of all choices of strictly ascending seconds the one with the largest sum of scores; seconds
    without a step cost nothing. Among equal choices the latest steps come as early as they can.

    Args:
        scores: (seconds, steps), higher is more similar; at least as many seconds as steps.

    Returns:
        (steps,) ascending.

    >>> ordered_seconds([[0.0, 9.0], [5.0, 1.0], [1.0, 2.0]]).tolist()
    [1, 2]
    """
    table = _table(scores)
    seconds, steps = table.shape
    if seconds < steps:
        raise ValueError(f"{seconds} seconds cannot show {steps} steps one after another")
    sums = np.empty_like(table)
    before = np.zeros(seconds)
    for step in range(steps):
        sums[:, step] = table[:, step] + before
        best = np.maximum.accumulate(sums[:, step])
        before = np.concatenate([[-np.inf], best[:-1]])
    chosen = np.empty(steps, dtype=np.int64)
    end = seconds
    for step in reversed(range(steps)):
        chosen[step] = end = int(np.argmax(sums[:end, step]))
    return chosen


def placed(scores: npt.ArrayLike, *, ordered: bool = True) -> Truths:
    """(seconds, steps) whether a step is predicted at a second.

    With ``ordered`` one second for each step, as :func:`ordered_seconds` has it. Where there are
    fewer seconds than steps, or if false, each second is given to the step that is most similar
    (the first of equal ones); a step may then have many seconds or none.
    """
    table = _table(scores)
    seconds, steps = table.shape
    found = np.zeros(table.shape, dtype=np.bool_)
    if ordered and seconds >= steps:
        found[ordered_seconds(table), np.arange(steps)] = True
    else:
        found[np.arange(seconds), table.argmax(axis=1)] = True
    return found


def shown(
    intervals: npt.ArrayLike, steps: npt.ArrayLike, *, shape: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """(seconds, steps) which second shows which step: from floor(start) up to ceil(end).

    Args:
        intervals: (n, 2) start and end in seconds.
        steps: (n,) the step of each, from 0.
        shape: Seconds of the video and steps of its task; what lies behind its end is cut off.

    >>> shown([[0.5, 1.2]], [0], shape=(3, 1)).T
    array([[ True,  True, False]])
    """
    truth = np.zeros(shape, dtype=np.bool_)
    limits = np.asarray(intervals, dtype=np.float64).reshape(-1, 2)
    for (start, end), step in zip(limits.tolist(), np.asarray(steps).tolist(), strict=True):
        truth[math.floor(start) : math.ceil(end), step] = True
    return truth


def step_recall(predicted: Truths, truth: Truths) -> float:
    """Share of a video's steps that are predicted where they are shown; NaN if it shows none.

    Both are (seconds, steps), from :func:`placed` and :func:`shown`.
    """
    present = truth.any(axis=0)
    found = (predicted & truth).any(axis=0)
    return float(found.sum() / present.sum()) if present.any() else math.nan


def average_precision(scores: npt.ArrayLike, truth: npt.ArrayLike) -> Floats:
    """(steps,) area under precision over recall, as a sum over thresholds; NaN without a positive.

    Scores and truth, which second shows which step, are (seconds, steps). Equal scores pass a
    threshold together (scikit-learn's ``average_precision_score``).

    >>> average_precision([[0.9], [0.8], [0.1]], [[True], [False], [True]])
    array([0.83333333])
    """
    table, right = _table(scores), np.asarray(truth, dtype=np.bool_)
    order = np.argsort(-table, axis=0, kind="stable")
    sorted_scores = np.take_along_axis(table, order, axis=0)
    hits = np.take_along_axis(right, order, axis=0).cumsum(axis=0)
    precision = hits / np.arange(1, len(table) + 1)[:, None]
    # Only where a run of equal scores ends is there a threshold.
    ends = np.vstack([np.diff(sorted_scores, axis=0) != 0, np.ones((1, table.shape[1]), bool)])
    passed = np.maximum.accumulate(np.where(ends, hits, 0), axis=0)
    gained = np.diff(passed, axis=0, prepend=0)
    total = hits[-1].astype(np.float64)
    found = np.full(len(total), np.nan)
    np.divide((gained * precision).sum(axis=0), total, out=found, where=total > 0)
    return found


def _table(scores: npt.ArrayLike) -> Floats:
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or not table.size or not np.isfinite(table).all():
        raise ValueError(
            f"scores of shape {table.shape}; they must be (seconds, steps), not empty, all finite"
        )
    return table
