"""Steps and seconds, against all choices that there are, and against scikit-learn."""

from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from continual_mm.metrics.localisation import (
    average_precision,
    ordered_seconds,
    placed,
    shown,
    step_recall,
)


@pytest.mark.parametrize("seconds", [4, 5, 8])
@pytest.mark.parametrize("steps", [1, 3, 4])
def test_the_chosen_seconds_are_the_best_of_all_that_ascend(seconds, steps):
    rng = np.random.default_rng([seconds, steps])
    for _ in range(10):
        scores = rng.standard_normal((seconds, steps))
        every = combinations(range(seconds), steps)
        best = max(every, key=lambda chosen: scores[list(chosen), range(steps)].sum())
        assert tuple(ordered_seconds(scores)) == best


def test_fewer_seconds_than_steps_cannot_show_them_in_order():
    scores = np.array([[0.1, 0.9, 0.5]])
    with pytest.raises(ValueError, match="1 seconds cannot show 3 steps"):
        ordered_seconds(scores)
    assert placed(scores).tolist() == [[False, True, False]]


def test_without_order_each_second_goes_to_its_most_similar_step():
    scores = np.random.default_rng(0).standard_normal((9, 3))
    predicted = placed(scores, ordered=False)
    assert (predicted.sum(axis=1) == 1).all()
    assert (scores[predicted] == scores.max(axis=1)).all()
    assert (placed(scores).sum(axis=0) == 1).all()


def test_a_step_is_shown_from_the_second_of_its_start_to_that_of_its_end():
    truth = shown([(0.2, 1.0), (1.7, 3.1), (5.0, 9.0)], [0, 1, 0], shape=(7, 3))
    assert truth[:, 0].tolist() == [True, False, False, False, False, True, True]
    assert truth[:, 1].tolist() == [False, True, True, True, False, False, False]
    assert not truth[:, 2].any()


def test_the_recall_of_a_video_counts_the_steps_that_it_shows():
    truth = shown([(0, 2), (3, 4)], [0, 2], shape=(5, 3))
    predicted = np.zeros((5, 3), dtype=bool)
    predicted[1, 0] = predicted[2, 1] = predicted[4, 2] = True
    assert step_recall(predicted, truth) == 0.5
    assert np.isnan(step_recall(predicted, np.zeros((5, 3), dtype=bool)))


@pytest.mark.parametrize("levels", [3, 1000])
def test_average_precision_is_that_of_scikit_learn_ties_included(levels):
    rng = np.random.default_rng(levels)
    scores = rng.integers(0, levels, (30, 5)) / levels
    truth = rng.random((30, 5)) < 0.3
    expected = [average_precision_score(truth[:, k], scores[:, k]) for k in range(5)]
    np.testing.assert_allclose(average_precision(scores, truth), expected)


def test_a_step_that_is_never_shown_has_no_average_precision():
    assert np.isnan(average_precision([[0.1], [0.2]], [[False], [False]])).all()


@pytest.mark.parametrize("scores", [[[np.nan]], [[np.inf, 0.0]], np.empty((0, 2)), [1.0]])
def test_scores_that_are_none_are_refused(scores):
    with pytest.raises(ValueError, match="all finite"):
        ordered_seconds(scores)
