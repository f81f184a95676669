import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from continual_mm.metrics.forgetting import forgetting, stability_gap, worst_score

NAN = math.nan
FALLS_AND_RECOVERS = [[0.1, 0.5], [0.3, 0.6], [0.45, 0.7]]
TABLES = arrays(np.float64, (4, 3), elements=st.floats(0, 1))


def test_the_worst_moment_is_each_pairs_own() -> None:
    np.testing.assert_array_equal(worst_score([[0.1, 0.9], [0.5, 0.4]]), [0.1, 0.4])


def test_a_drop_that_recovers_is_a_gap_all_the_same() -> None:
    gap = stability_gap([0.5, 0.5], FALLS_AND_RECOVERS)
    np.testing.assert_allclose(gap, [0.4, 0.0])
    ends_only = forgetting([[0.5, 0.5], FALLS_AND_RECOVERS[-1]], [0, 0])
    np.testing.assert_allclose(ends_only, [0.05, -0.2])


def test_a_pair_that_is_better_all_the_time_has_a_negative_gap() -> None:
    np.testing.assert_allclose(stability_gap([0.5], [[0.7], [0.6]]), [-0.1])


@given(TABLES, arrays(np.float64, 3, elements=st.floats(0, 1)))
def test_the_gap_is_never_less_than_what_the_ends_show(
    within: np.ndarray, before: np.ndarray
) -> None:
    gap = stability_gap(before, within)
    assert (gap >= before - within[-1]).all()
    assert (gap == before - np.sort(within, axis=0)[0]).all()


@given(TABLES)
def test_another_look_never_raises_the_worst_score(within: np.ndarray) -> None:
    assert (worst_score(within) <= worst_score(within[1:])).all()


def test_the_end_alone_says_nothing_about_the_stage() -> None:
    for within in ([[0.3, 0.4]], np.empty((0, 2))):
        assert np.isnan(worst_score(within)).all()
        assert np.isnan(stability_gap([0.5, 0.5], within)).all()


def test_what_is_missing_in_one_pair_is_missing_there_only() -> None:
    within = [[0.1, NAN], [0.2, 0.3]]
    np.testing.assert_array_equal(worst_score(within), [0.1, NAN])
    gap = stability_gap([NAN, 0.5, 0.5], [[0.1, 0.2, 0.3], [0.2, 0.1, NAN]])
    np.testing.assert_array_equal(gap, [NAN, 0.4, NAN])


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        worst_score([0.1, 0.2])
    with pytest.raises(ValueError, match=r"\(1,\) scores before .* \(2,\)"):
        stability_gap([0.5], [[0.1, 0.2], [0.3, 0.4]])
