"""What a random order scores, against all orders of a few answers."""

from itertools import permutations

import numpy as np
import pytest

from continual_mm.metrics.chance import chance_recall_at, chance_reciprocal_rank


@pytest.mark.parametrize("right", [1, 2, 4])
def test_chance_is_the_mean_over_all_orders(right):
    before = []  # wrong answers before the first right one
    for order in permutations([True] * right + [False] * (5 - right)):
        before.append(order.index(True))
    found = np.array(before)
    for k in (1, 2, 5, 10):
        assert chance_recall_at(k, 5, right) == pytest.approx((found < k).mean())
    assert chance_reciprocal_rank(5, right) == pytest.approx((1 / (found + 1)).mean())


def test_the_recall_of_a_single_right_answer_is_the_share_of_the_list_that_is_shown():
    assert chance_recall_at(10, 600) == pytest.approx(10 / 600)
    assert chance_recall_at(1, 600, 3.0) == pytest.approx(3 / 600)
