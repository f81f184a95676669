"""Summaries under weights, against samples in which every query is there as often as it counts."""

import numpy as np
import pytest

from continual_mm.metrics.answers import (
    mean_of_groups,
    weighted_listed_median_rank,
    weighted_listed_recall_at,
    weighted_mean,
    weighted_median_rank,
    weighted_recall_at,
)

RNG = np.random.default_rng(4)
RANKS = np.array([0.0, 3.5, 3.5, 12.0, np.inf, 0.5, 7.0])
WEIGHTS = RNG.integers(0, 4, (40, 7)).astype(float)


def samples(values):
    return [np.repeat(values, row.astype(int)) for row in WEIGHTS]


@pytest.mark.parametrize("values", [RANKS[[0, 1, 2, 3, 5, 6, 0]], RANKS], ids=["all", "missing"])
def test_the_median_is_that_of_the_resampled_ranks(values):
    expected = [np.median(sample) + 1 for sample in samples(values)]
    np.testing.assert_array_equal(weighted_median_rank(values, WEIGHTS), expected)


def test_a_rank_that_is_no_number_is_missed_by_recalls_and_left_out_of_the_median():
    ranks = np.array([0.0, 2.0, np.nan, np.nan, np.nan])
    once = np.ones((1, 5))
    assert weighted_median_rank(ranks, once) == [2.0]
    assert weighted_recall_at(ranks, once, 1) == [0.2]
    assert weighted_median_rank(np.where(np.isnan(ranks), np.inf, ranks), once) == [np.inf]


def test_recalls_and_means_are_those_of_the_resampled_queries():
    for k in (1, 5):
        expected = [(sample < k).mean() for sample in samples(RANKS)]
        np.testing.assert_allclose(weighted_recall_at(RANKS, WEIGHTS, k), expected)
    values = RNG.random(7)
    np.testing.assert_allclose(
        weighted_mean(values, WEIGHTS), [sample.mean() for sample in samples(values)]
    )


@pytest.mark.parametrize("missing", [0, 2])
def test_of_lists_of_ranks_every_rank_counts_as_often_as_its_query(missing):
    first = np.concatenate([RNG.integers(0, 9, 7 - missing).astype(float), [np.nan] * missing])
    last = first + RNG.integers(0, 4, 7)
    each = [
        np.arange(a, b + 1) if a == a else np.empty(0) for a, b in zip(first, last, strict=True)
    ]
    checked = 0
    for weights in WEIGHTS:
        listed = np.concatenate([each[k] for k in np.repeat(np.arange(7), weights.astype(int))])
        once = weights[None]
        for k in (1, 5, 10):
            (recall,) = weighted_listed_recall_at(first, last, once, k)
            assert recall == pytest.approx((listed < k).sum() / weights.sum())
        (median,) = weighted_listed_median_rank(first, last, once)
        if len(listed):
            checked += 1
            assert median == np.median(listed) + 1
    assert checked > 30
    together = weighted_listed_median_rank(first, last, WEIGHTS)
    alone = [weighted_listed_median_rank(first, last, row[None])[0] for row in WEIGHTS]
    np.testing.assert_array_equal(together, alone)


def test_where_nothing_is_listed_no_median_is_known():
    nothing = np.full(3, np.nan)
    assert np.isnan(weighted_listed_median_rank(nothing, nothing, np.ones((2, 3)))).all()
    some = np.array([0.0, np.nan])
    found = weighted_listed_median_rank(some, some, np.array([[1.0, 1.0], [0.0, 2.0]]))
    np.testing.assert_array_equal(found, [1.0, np.nan])


def test_groups_count_alike_however_many_members_are_drawn():
    values, groups = RNG.random(7), np.array([0, 0, 0, 0, 5, 5, 9])
    expected = []
    for row in WEIGHTS:
        chosen = np.repeat(np.arange(7), row.astype(int))
        means = [values[chosen[groups[chosen] == g]].mean() for g in np.unique(groups[chosen])]
        expected.append(np.mean(means))
    np.testing.assert_allclose(mean_of_groups(values, groups, WEIGHTS), expected)


def test_what_drew_nothing_is_undefined():
    nothing = np.zeros((1, 7))
    assert np.isnan(weighted_mean(np.ones(7), nothing)).all()
    assert np.isnan(weighted_median_rank(RANKS, nothing)).all()
    assert np.isnan(mean_of_groups(np.ones(7), np.ones(7), nothing)).all()
    assert np.isnan(weighted_median_rank(np.full(7, np.nan), WEIGHTS)).all()
