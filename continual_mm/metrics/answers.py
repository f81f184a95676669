"""What a protocol measures: values per query, and the published summaries of them."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def weighted_mean(values: Floats, weights: Floats) -> Floats:
    """Weighted mean in every replicate; NaN where all weights are 0.

    >>> weighted_mean(np.array([1.0, 0.0]), np.array([[1.0, 1.0], [0.0, 2.0], [0.0, 0.0]]))
    array([0.5, 0. , nan])
    """
    known = ~np.isnan(values)
    return _ratio(weights[:, known] @ values[known], weights[:, known].sum(axis=1))


def weighted_recall_at(ranks: Floats, weights: Floats, k: int) -> Floats:
    """Share of queries whose rank, counted from 0, is below k; without a rank they are missed."""
    return weighted_mean((ranks < k).astype(np.float64), weights)


def weighted_median_rank(ranks: Floats, weights: Floats) -> Floats:
    """Median of the ranks counted from 1, where each occurs as often as its weight says.

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
    """Number of ranks below k per query, where a query lists all its ranks from first to last.

    Above 1 where ties list several; a query without a rank is missed.
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
    """(replicates,) mean over groups of the weighted mean inside each, without groups of weight 0.

    ``values`` and ``groups``, such as the class of each query, are (queries,); weights (replicates,
    queries).
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


Summary = Callable[[Floats, Floats], Floats]
"""(rows, queries) values and (replicates, queries) weights -> (replicates,)."""

RECALLS = (1, 5, 10)

LISTED = "retrieval, every tie listed"
"""The kind ``retrieval`` as the published mistake ``ties_listed_each`` counts it."""


@dataclass(frozen=True, slots=True)
class Answers:
    """The results of queries of one sort.

    ``units``, (queries,), is a number for each query, ascending: a row of the dataset, a video, a
    task. ``values``, (rows, queries): the :class:`Series` says what a row is. The rank of a missing
    item is infinity; NaN is a rank that medians leave out. ``groups`` are names of groups of
    queries, such as tasks; a group's number is its place in here. ``recordings``, (queries,), are
    numbers, equal for queries that share a recording; None where none do.
    """

    units: npt.NDArray[np.int64]
    values: Floats
    groups: tuple[str, ...] = ()
    recordings: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class Measure:
    """A summary of answers.

    ``name`` is that in ``scores.json``, ``short`` a heading; ``of`` computes it in every replicate.
    A ``share`` is a fraction, to be shown in percent; otherwise it is a rank from 1.
    """

    name: str
    short: str
    of: Summary
    share: bool = True


@dataclass(frozen=True, slots=True)
class Series:
    """Queries of one sort, called ``name`` in the files of ranks, and their measures.

    The values have so many ``rows``. Strategies are compared by the first of the measures.
    ``group`` is the row with the number of each query's group, if groups have names; None where the
    query is a group itself.
    """

    name: str
    title: str
    rows: int
    measures: tuple[Measure, ...]
    group: int | None = None


def _over_rows(measure: Callable[..., Floats], *settings: int) -> Summary:
    """A measure that takes each row of the values, then weights and settings."""
    return lambda values, weights: measure(*values, weights, *settings)


def _mean(values: Floats, weights: Floats, *, row: int = 0) -> Floats:
    return weighted_mean(values[row], weights)


def _by_group(values: Floats, weights: Floats) -> Floats:
    return mean_of_groups(values[0], values[1], weights)


def _pooled(values: Floats, weights: Floats) -> Floats:
    return weighted_mean(values[0], weights * values[2])


def _ranked(
    prefix: str = "",
    recall: Callable[..., Floats] = weighted_recall_at,
    median: Callable[..., Floats] = weighted_median_rank,
) -> tuple[Measure, ...]:
    """Recalls and the median of ranks."""
    recalls = (Measure(f"{prefix}recall@{k}", f"R@{k}", _over_rows(recall, k)) for k in RECALLS)
    return (*recalls, Measure(f"{prefix}median_rank", "MedR", _over_rows(median), share=False))


_LISTED = _ranked("", weighted_listed_recall_at, weighted_listed_median_rank)


def _voted(name: str, title: str) -> Series:
    """Shares of what was found among the first 1, 5 and 10; a row each."""
    measures = (
        Measure(f"{name}@{k}", f"R@{k}", partial(_mean, row=row)) for row, k in enumerate(RECALLS)
    )
    return Series(name, title, len(RECALLS), tuple(measures))


SERIES: Mapping[str, tuple[Series, ...]] = MappingProxyType(
    {
        "retrieval": (Series("items", "item to item", 1, _ranked()),),
        LISTED: (Series("items", "item to item, every tie listed", 2, _LISTED),),
        "video_retrieval": (
            Series("clips", "caption to clip", 1, _ranked("clip_")),
            Series("captions", "caption to video", 1, _ranked("video_")),
            Series("videos", "all captions to video", 1, _ranked("all_captions_")),
            _voted("video_votes", "all captions to video, by votes for videos"),
            _voted("clip_votes", "all captions to video, by votes for clips"),
        ),
        "steps": (
            Series(
                "videos",
                "steps found in videos",
                3,
                (
                    Measure("recall", "recall", _by_group),
                    Measure("pooled_recall", "pooled", _pooled),
                ),
                group=1,
            ),
            Series("tasks", "seconds ranked", 1, (Measure("average_precision", "mAP", _mean),)),
        ),
        "classes": (
            Series(
                "items",
                "items classified",
                2,
                (
                    Measure("accuracy", "accuracy", _mean),
                    Measure("mean_class_accuracy", "mean of classes", _by_group),
                ),
            ),
        ),
    }
)
"""Kind of protocol, as it is counted -> its series.

Rows are the rank where recalls and a median are measured; the first and the last rank where a query
lists all between them; the shares found among 1, 5 and 10 where there are votes; for ``steps`` the
recall, task and number of steps of a video, and the average precision of a task; for ``classes``
whether an item is classified correctly, and its class.
"""


def counted(kind: str, bugs: Collection[str]) -> str:
    """The key in :data:`SERIES` of a kind of protocol, in a space that repeats these bugs."""
    return LISTED if kind == "retrieval" and "ties_listed_each" in bugs else kind


def by_group(series: Series, answers: Answers, weights: Floats) -> dict[str, Floats]:
    """Group -> (replicates,) mean of its queries' values for the first measure.

    NaN in a replicate that drew none of its queries; empty where groups have no names.
    """
    if not answers.groups:
        return {}
    numbers = answers.units if series.group is None else answers.values[series.group]
    found = {}
    for number, name in enumerate(answers.groups):
        mine = numbers == number
        found[name] = weighted_mean(answers.values[0][mine], weights[:, mine])
    return found


def summaries_by_group(kind: str, answers: Mapping[str, Answers]) -> dict[str, dict[str, float]]:
    """Group -> first measure of each series -> its value, where groups have names.

    ``kind`` is the protocol's, as it is counted; answers are by the name of their series.
    """
    found: dict[str, dict[str, float]] = {}
    for series in SERIES[kind]:
        mine = answers[series.name]
        for name, values in by_group(series, mine, np.ones((1, len(mine.units)))).items():
            found.setdefault(name, {})[series.measures[0].name] = float(values[0])
    return found


def summaries(kind: str, answers: Mapping[str, Answers]) -> dict[str, float]:
    """Measure -> its value for the answers as they are; NaN where it is undefined.

    ``kind`` is the protocol's, as it is counted; answers are by the name of their series.
    """
    return {
        measure.name: float(measure.of(found.values, np.ones((1, len(found.units))))[0])
        for series in SERIES[kind]
        for measure in series.measures
        for found in (answers[series.name],)
    }
