import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from continual_mm.metrics.forgetting import (
    backward_transfer,
    forgetting,
    harmonic_mean,
    intransigence,
    retention,
    stability_gap,
    worst_score,
)

NAN = math.nan
EXAMPLE = np.array([[60, NAN, NAN], [70, 50, NAN], [65, 40, 55]])
BORN = [0, 1, 2]
FALLS_AND_RECOVERS = [[0.1, 0.5], [0.3, 0.6], [0.45, 0.7]]
TABLES = arrays(np.float64, (4, 3), elements=st.floats(0, 1))


def avalanche(table):
    """First minus last, over the experiences before the last."""
    return float(np.mean([table[i, i] - table[-1, i] for i in range(len(table) - 1)]))


def chaudhry(table):
    """Best before the last minus last, as Continuum computes it too."""
    return float(np.mean([np.nanmax(table[:-1, i]) - table[-1, i] for i in range(len(table) - 1)]))


def test_ours_are_those_of_chaudhry_and_of_gem():
    np.testing.assert_array_equal(forgetting(EXAMPLE, BORN), [5, 10, NAN])
    np.testing.assert_array_equal(backward_transfer(EXAMPLE, BORN), [5, -10, NAN])
    assert np.nanmean(forgetting(EXAMPLE, BORN)) == chaudhry(EXAMPLE)
    assert np.nanmean(backward_transfer(EXAMPLE, BORN)) == -avalanche(EXAMPLE)


def test_a_median_rank_must_change_its_sign_first():
    median_rank = np.array([[3.0, NAN], [20.0, 5.0]])
    assert forgetting(median_rank, [0, 1])[0] == -17
    assert forgetting(-median_rank, [0, 1])[0] == 17
    assert backward_transfer(-median_rank, [0, 1])[0] == -17


def test_retention_is_the_share_kept_above_chance():
    scores = np.array([[0.9, 0.3, 0.1], [0.5, 0.3, 0.2]])
    np.testing.assert_allclose(retention(scores, [0, 0, 0], chance=0.1), [0.5, 1.0, NAN])
    np.testing.assert_allclose(
        retention(scores, [0, 0, 0], chance=[0.1, 0.5, 0.0]), [0.5, 1.0, 2.0]
    )


@given(st.floats(0.2, 1), st.floats(0, 1), st.floats(0.1, 10), st.floats(-5, 5))
def test_retention_does_not_depend_on_the_unit_of_the_score(born, last, unit, origin):
    scores, chance = np.array([[born], [last]]), 0.1
    plain = retention(scores, [0], chance=chance)
    changed = retention(unit * scores + origin, [0], chance=unit * chance + origin)
    np.testing.assert_allclose(changed, plain, rtol=1e-9, atol=1e-9)


def test_pairs_born_last_have_nothing_to_forget_yet():
    scores = np.array([[0.5, NAN], [0.4, 0.9]])
    for values in (
        backward_transfer(scores, [0, 1]),
        forgetting(scores, [0, 1]),
        retention(scores, [0, 1], chance=0.0),
    ):
        assert np.isnan(values).tolist() == [False, True]
    alone = np.array([[0.5]])
    assert np.isnan(forgetting(alone, [0])).all()
    assert np.isnan(backward_transfer(alone, [0])).all()
    assert np.isnan(retention(alone, [0], chance=0.0)).all()


def test_intransigence_compares_the_score_at_birth_with_a_joint_model():
    joint = np.array([60, 58, 52])
    np.testing.assert_array_equal(intransigence(EXAMPLE, BORN, joint), [0, 8, -3])
    np.testing.assert_array_equal(intransigence(EXAMPLE, BORN, [NAN, 58, NAN]), [NAN, 8, NAN])


def test_tensors_are_accepted():
    scores, born = torch.tensor(EXAMPLE), torch.tensor(BORN)
    np.testing.assert_array_equal(forgetting(scores, born), forgetting(EXAMPLE, BORN))
    np.testing.assert_array_equal(
        intransigence(scores, born, torch.tensor([60, 58, 52])), [0, 8, -3]
    )


@pytest.mark.parametrize(
    ("stage", "pair", "value", "words"),
    [(2, 0, NAN, "NaN after its birth at stage 0"), (0, 1, 0.0, "a score before .* stage 1")],
)
def test_nan_anywhere_but_before_birth_is_refused_by_stage_and_pair(stage, pair, value, words):
    scores = EXAMPLE.copy()
    scores[stage, pair] = value
    for measure in (
        lambda: backward_transfer(scores, BORN),
        lambda: forgetting(scores, BORN),
        lambda: retention(scores, BORN, chance=0.0),
        lambda: intransigence(scores, BORN, [1, 1, 1]),
    ):
        with pytest.raises(ValueError, match=f"stage {stage}, pair {pair}: {words}"):
            measure()


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        (lambda: forgetting([1, 2, 3], [0]), r"scores of shape \(3,\)"),
        (lambda: forgetting(EXAMPLE, [0, 1]), r"birth of shape \(2,\).*\(3, 3\)"),
        (lambda: forgetting(EXAMPLE, [0.0, 1.0, 2.0]), "float64"),
        (
            lambda: forgetting(EXAMPLE, [0, 1, 3]),
            r"pair 2: birth at stage 3, but stages are 0\.\.2",
        ),
        (lambda: retention(EXAMPLE, BORN, chance=[0.1, 0.1]), r"chance of shape \(2,\)"),
        (lambda: intransigence(EXAMPLE, BORN, 60), r"joint of shape \(\)"),
        (lambda: worst_score([0.1, 0.2]), r"shape \(2,\)"),
        (lambda: stability_gap([0.5], [[0.1, 0.2], [0.3, 0.4]]), r"\(1,\) scores before .* \(2,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(measure, words):
    with pytest.raises(ValueError, match=words):
        measure()


@given(st.floats(0.01, 1), st.floats(0.01, 1))
def test_the_harmonic_mean_is_the_reciprocal_of_the_mean_reciprocal(old, new):
    assert harmonic_mean(old, new) == pytest.approx(1 / ((1 / old + 1 / new) / 2))
    assert harmonic_mean(old, new) == harmonic_mean(new, old)


def test_the_harmonic_mean_at_its_edges():
    assert [harmonic_mean(*pair) for pair in ((0, 0.9), (0.9, 0), (0, 0))] == [0, 0, 0]
    assert all(math.isnan(harmonic_mean(*pair)) for pair in ((NAN, 0.5), (0.5, NAN)))
    with pytest.raises(ValueError, match=r"-0\.1"):
        harmonic_mean(-0.1, 0.1)


def test_a_drop_that_recovers_is_a_gap_all_the_same():
    gap = stability_gap([0.5, 0.5], FALLS_AND_RECOVERS)
    np.testing.assert_allclose(gap, [0.4, 0.0])
    ends_only = forgetting([[0.5, 0.5], FALLS_AND_RECOVERS[-1]], [0, 0])
    np.testing.assert_allclose(ends_only, [0.05, -0.2])


@given(TABLES, arrays(np.float64, 3, elements=st.floats(0, 1)))
def test_the_gap_is_never_less_than_what_the_ends_show(within, before):
    gap = stability_gap(before, within)
    assert (gap >= before - within[-1]).all()
    assert (gap == before - np.sort(within, axis=0)[0]).all()


def test_the_end_alone_has_no_worst_score_and_no_gap():
    for within in ([[0.3, 0.4]], np.empty((0, 2))):
        assert np.isnan(worst_score(within)).all()
        assert np.isnan(stability_gap([0.5, 0.5], within)).all()


def test_what_is_missing_in_one_pair_is_missing_there_only():
    within = [[0.1, NAN], [0.2, 0.3]]
    np.testing.assert_array_equal(worst_score(within), [0.1, NAN])
    gap = stability_gap([NAN, 0.5, 0.5], [[0.1, 0.2, 0.3], [0.2, 0.1, NAN]])
    np.testing.assert_array_equal(gap, [NAN, 0.4, NAN])
