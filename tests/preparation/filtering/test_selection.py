"""Which pairs are kept, on scores that can be sorted by eye."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual_mm.preparation.filtering.selection import above, best, kept_count, ranks
from continual_mm.system.errors import InputError

HYPE = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
COSINE = np.array([0.1, 0.2, 0.9, 0.8, 0.7, 0.3, 0.6, 0.5, 0.4])


def rows(by, count, hype=HYPE, cosine=COSINE):
    return np.flatnonzero(best(by, count, hype=hype, cosine=cosine)).tolist()


def test_the_best_by_one_score():
    assert rows("hype", 3) == [0, 1, 2]
    assert rows("cosine", 3) == [2, 3, 4]


def test_the_union_takes_the_best_of_both_in_turn():
    assert rows("union", 2) == [0, 2]
    assert rows("union", 4) == [0, 1, 2, 3]


def test_the_intersection_takes_what_is_good_by_both():
    assert rows("intersection", 3) == [2, 3, 4]


def test_the_cascade_takes_the_best_by_cosine_of_the_best_by_hype():
    # Of nine, six by HYPE, which is the root of 4 * 9; of these, four by cosine.
    assert rows("cascade", 4) == [2, 3, 4, 5]
    # Of nine, three by HYPE; of these, one by cosine.
    assert rows("cascade", 1) == [2]


@pytest.mark.parametrize("by", ["hype", "cosine", "union", "intersection", "cascade"])
def test_equal_scores_are_kept_in_the_order_of_their_rows(by):
    same = np.zeros(10)
    assert rows(by, 3, same, same) == [0, 1, 2]


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=40), st.data())
def test_every_way_keeps_as_many_as_are_asked_for(scores, data):
    hype = np.array(scores)
    cosine = np.array(data.draw(st.permutations(scores)))
    count = data.draw(st.integers(1, len(scores)))
    kept = {
        by: best(by, count, hype=hype, cosine=cosine)
        for by in ("hype", "cosine", "union", "intersection", "cascade")
    }
    assert {int(each.sum()) for each in kept.values()} == {count}
    assert not (kept["union"] & ~(kept["hype"] | kept["cosine"])).any()
    assert not (kept["hype"] & kept["cosine"] & ~kept["intersection"]).any()


def test_ranks_are_those_of_a_stable_sort():
    scores = np.random.default_rng(0).integers(5, size=50).astype(float)
    order = sorted(range(50), key=lambda row: -scores[row])
    assert ranks(scores)[order].tolist() == list(range(50))


@pytest.mark.parametrize(
    ("share", "pairs", "count"),
    [(0.3, 10, 3), (0.29, 100, 29), (0.5, 3, 1), (1.0, 7, 7), (0.7, 10, 7)],
)
def test_a_share_is_rounded_down_and_not_by_the_error_of_a_float(share, pairs, count):
    assert kept_count(share, pairs, "here") == count


def test_a_share_of_less_than_one_pair_is_refused_with_the_least_that_works():
    with pytest.raises(InputError, match=r"here: of 20 pairs a share of 0.04 keeps none.* 0.05"):
        kept_count(0.04, 20, "here")
    for share in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(InputError, match="cannot be kept"):
            kept_count(share, 20, "here")


def test_a_threshold_keeps_what_reaches_it_and_is_refused_if_nothing_does():
    assert np.flatnonzero(above(0.5, HYPE, "here")).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match=r"here: a threshold of 0.95 keeps no pair.* 0.1 to 0.9"):
        above(0.95, HYPE, "here")
