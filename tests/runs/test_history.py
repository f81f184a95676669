"""What a run measured: curves inside stages and how far the recall of old pairs fell."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from continual_mm.evaluation.drift import Geometry
from continual_mm.runs.history import Point, curve, near_chance, stability
from continual_mm.runs.run import train


def scores(*evaluations, pair="a-b", split="test"):
    """Both directions of a pair at (stage, step, final)."""
    return [
        SimpleNamespace(
            stage=stage, step=step, final=final, split=split, pair=pair, recall_at_1=recall
        )
        for stage, step, final, *both in evaluations
        for recall in both
    ]


FALLS = scores(
    (1, 5, False, 0.2, 0.4),
    (1, 10, True, 0.5, 0.75),
    (2, 15, False, 0.125, 0.25),
    (2, 20, True, 0.375, 0.5),
)


def worst_and_gap(found, *pairs):
    return stability(found, pairs, stages=2, split="test")


def test_a_curve_has_every_evaluation_once_with_the_mean_of_both_directions():
    others = scores((2, 20, True, 1.0, 1.0), pair="a-c")
    validation = scores((2, 20, True, 1.0, 1.0), split="validation")
    without_queries = scores((2, 17, False, None, None))
    every = [*validation, *reversed(FALLS), *others, *without_queries]
    assert curve(every, "a-b", split="test") == [
        Point(1, 5, False, (0.2 + 0.4) / 2),
        Point(1, 10, True, 0.625),
        Point(2, 15, False, 0.1875),
        Point(2, 20, True, 0.4375),
    ]


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ((51, 51), {"a-b": 0.505}),  # the median of 100 places
        ((31, 61), {"a-b": 0.455}),
        ((31, 41), {}),
        ((1, 2), {}),
    ],
)
def test_a_pair_whose_answers_stand_anywhere_is_near_chance(ranks, expected):
    known = {"stage": 2, "final": True, "split": "validation", "pair": "a-b", "queries": 100,
             "gallery": 0, "chance": 1 / 100}  # fmt: skip
    found = [SimpleNamespace(**known, median_rank=rank) for rank in ranks]
    assert near_chance(found, ["a-b", "b-c"], 2) == pytest.approx(expected)
    for other in ({"stage": 1}, {"final": False}, {"split": "test"}, {"queries": 10}):
        elsewhere = [SimpleNamespace(**{**vars(one), **other}) for one in found]
        assert near_chance(elsewhere, ["a-b"], 2) == {}
    assert near_chance(found, ["b-c"], 2) == {}


def test_the_fall_is_from_the_end_of_the_stage_before_to_the_worst_of_the_last():
    assert worst_and_gap(FALLS, "a-b") == (0.1875, 0.625 - 0.1875)
    later = scores(
        (1, 10, True, 0.5, 0.5), (2, 15, False, 1, 1), (2, 20, True, 0.25, 0.25), pair="b-c"
    )
    each = worst_and_gap([*FALLS, *later], "a-b", "b-c")
    assert each == ((0.1875 + 0.25) / 2, (0.4375 + 0.25) / 2)


@pytest.mark.parametrize(
    ("found", "pairs"),
    [
        pytest.param([one for one in FALLS if one.final], ["a-b"], id="only stage ends"),
        pytest.param([one for one in FALLS if one.stage == 2], ["a-b"], id="joint training"),
        pytest.param(FALLS, [], id="no old pairs"),
    ],
)
def test_where_nothing_can_have_fallen_the_gap_is_unknown(found, pairs):
    assert all(math.isnan(value) for value in worst_and_gap(found, *pairs))


@pytest.fixture(scope="module")
def history(scenario, dataset, changed):
    return train(changed(scenario, steps=4, evaluate_every=1), dataset, device="cpu")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_run_has_points_inside_its_stages_and_their_worst_in_its_headline(history, split):
    steps, recalls = history.curve("video-audio", split=split)
    assert steps.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    headline = history.headline(split=split)
    assert headline["worst_old_pairs"] == pytest.approx(recalls[4:].min())
    assert headline["stability_gap"] == pytest.approx(recalls[3] - recalls[4:].min())
    assert headline["old_pairs"] == pytest.approx(recalls[7])
    assert headline["forgetting"] == pytest.approx(recalls[3] - recalls[7])
    assert [geometry.step for geometry in history.geometry] == list(range(1, 9))


def test_a_stage_or_pair_that_the_run_does_not_have_is_refused(history):
    for stage in (-1, 0, 3):
        with pytest.raises(IndexError, match=f"no stage {stage} in this run; it has stages 1 to 2"):
            history.recall("audio-video", stage=stage)
    for ask in (history.curve, history.recall):
        with pytest.raises(KeyError, match=r"no pair 'audio-smell'.*audio-text, audio-video"):
            ask("audio-smell")


def test_geometry_comes_back_as_it_was_written():
    geometry = Geometry(2, 8, True, {"a-b": 0.5}, 0.25, {"a": 1.0}, {"a": 0.5}, {"a-b": 0.125})
    assert Geometry.from_json(geometry.as_json()) == geometry
    unknown = Geometry.from_json({**geometry.as_json(), "rotation": None, "moved": {"a": None}})
    assert math.isnan(unknown.rotation)
    assert math.isnan(unknown.moved["a"])


@pytest.mark.parametrize("right", [1, 5, 20])
def test_of_several_right_answers_the_best_is_near_chance_where_it_would_be_drawn(right):
    order = np.random.default_rng(right).random((4001, 200)).argsort(axis=1)
    median = 1 + float(np.median((order < right).argmax(axis=1)))
    known = {"stage": 2, "final": True, "split": "validation", "pair": "a-b", "queries": 40,
             "gallery": 200, "chance": right / 200, "median_rank": median}  # fmt: skip
    assert near_chance([SimpleNamespace(**known)], ["a-b"], 2) == pytest.approx(
        {"a-b": 0.5}, abs=0.06
    )
