import math
import tracemalloc

import numpy as np
import pytest

from continual_mm.metrics import bootstrap
from continual_mm.metrics.bootstrap import interval, resample_weights, weighted_recall

NAN = math.nan


def draw(queries, seeds, replicates, seed=0):
    return resample_weights(
        queries, seeds, replicates=replicates, generator=np.random.default_rng(seed)
    )


def test_weights_count_what_was_drawn():
    queries, seeds = draw(30, 5, 400)
    assert queries.shape == (400, 30)
    assert seeds.shape == (400, 5)
    for counts, size in ((queries, 30), (seeds, 5)):
        np.testing.assert_array_equal(counts, counts.round())
        np.testing.assert_array_equal(counts.sum(axis=1), np.full(400, size))
        assert counts.var() == pytest.approx(1 - 1 / size, rel=0.1)


def test_queries_and_seeds_are_drawn_independently():
    queries, seeds = draw(8, 8, 4000)
    both = np.corrcoef(queries.T, seeds.T)[:8, 8:]
    assert np.abs(both).max() < 0.08


def test_many_queries_are_drawn_and_weighed_some_replicates_at_a_time(monkeypatch):
    expected = np.random.default_rng(0).multinomial(50, np.full(50, 1 / 50), size=9)
    hits = np.random.default_rng(1).integers(2, size=(2, 3, 50)).astype(float)
    whole = weighted_recall(hits, *draw(50, 2, 9))
    for most in (1, 100, 1 << 24):
        monkeypatch.setattr(bootstrap, "_VALUES_AT_ONCE", most)
        weights = draw(50, 2, 9)
        np.testing.assert_array_equal(weights[0], expected)
        assert weights[0].nbytes == 2 * expected.size
        np.testing.assert_array_equal(weighted_recall(hits, *weights), whole)


def test_weights_follow_from_the_generator_alone():
    state = np.random.get_state()[2]
    first, again, other = draw(20, 3, 10), draw(20, 3, 10), draw(20, 3, 10, seed=1)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()
    assert np.random.get_state()[2] == state


def test_a_replicate_is_the_recall_of_the_repeated_queries_and_seeds():
    generator = np.random.default_rng(0)
    hits = generator.integers(2, size=(3, 4, 20)).astype(float)
    hits[:, 1, 15:] = NAN
    queries, seeds = draw(20, 3, 25)
    recall = weighted_recall(hits, queries, seeds)
    for replicate in range(25):
        rows = np.repeat(np.arange(3), seeds[replicate].astype(int))
        columns = np.repeat(np.arange(20), queries[replicate].astype(int))
        repeated = hits[rows][:, :, columns]
        np.testing.assert_allclose(recall[replicate], np.nanmean(repeated, axis=(0, 2)))


def test_a_seed_that_lacks_a_cell_is_left_out_of_it():
    hits = np.array([[[1.0, 0.0]], [[NAN, NAN]]])
    recall = weighted_recall(hits, np.ones((2, 2)), np.array([[1.0, 1.0], [0.0, 2.0]]))
    np.testing.assert_array_equal(recall, [[0.5], [NAN]])


def test_three_seeds_show_two_thirds_of_their_variance_as_documented():
    means = np.array([0.2, 0.5, 0.6])
    hits = means[:, None, None] * np.ones((3, 1, 10))
    recall = weighted_recall(hits, *draw(10, 3, 20_000))
    assert recall.var() == pytest.approx(2 / 3 * means.var(ddof=1) / 3, rel=0.05)


def test_pairing_removes_what_both_strategies_find_hard():
    generator = np.random.default_rng(0)
    baseline = (generator.random((1, 1, 1000)) < 0.5).astype(float)
    better = baseline.copy()
    better[0, 0, np.flatnonzero(baseline[0, 0] == 0)[:20]] = 1
    weights = draw(1000, 1, 2000)
    first, second = (weighted_recall(hits, *weights)[:, 0] for hits in (baseline, better))
    low, _ = interval(second - first)
    assert low > 0
    assert (second - first).std() == pytest.approx(math.sqrt(0.02 * 0.98 / 1000), rel=0.06)
    unpaired = weighted_recall(better, *draw(1000, 1, 2000, seed=1))[:, 0]
    assert (unpaired - first).std() > 4 * (second - first).std()


def test_large_tables_stay_within_their_memory():
    hits = np.ones((1, 2, 40_000))
    tracemalloc.start()
    weighted_recall(hits, *draw(40_000, 1, 500))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    in_float64 = 8 * 500 * 40_000
    assert peak < in_float64


def test_an_interval_is_a_pair_of_percentiles_of_each_column():
    samples = np.stack([np.arange(101.0), 7 * np.ones(101), np.full(101, NAN)], axis=1)
    samples[::2, 1] = NAN
    low, high = interval(samples, level=0.5)
    np.testing.assert_allclose(low, [25, 7, NAN])
    np.testing.assert_allclose(high, [75, 7, NAN])


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="seeds: 0"):
        draw(3, 0, 5)
    with pytest.raises(ValueError, match="replicates: 0"):
        draw(3, 1, 0)
    with pytest.raises(ValueError, match=r"\(1, 2, 3\).*\(5, 4\)"):
        weighted_recall(np.ones((1, 2, 3)), np.ones((5, 4)), np.ones((5, 1)))
    for level in (0.0, 1.0, 95.0, NAN):
        with pytest.raises(ValueError, match=f"level {level}"):
            interval(np.ones(3), level=level)
    with pytest.raises(ValueError, match="at least one replicate"):
        interval(np.ones((0, 3)))
