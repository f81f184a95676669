"""From the scores of a run to curves, and to how deep old pairs fell."""

import math
from collections.abc import Sequence
from types import SimpleNamespace

from continual_mm.runs.history import Point, curve, stability


def scores(
    *moments: tuple[int, int, bool, float, float], pair: str = "a-b", split: str = "test"
) -> list[SimpleNamespace]:
    """Both directions of a pair at (stage, step, final)."""
    return [
        SimpleNamespace(
            stage=stage, step=step, final=final, split=split, pair=pair, recall_at_1=recall
        )
        for stage, step, final, *both in moments
        for recall in both
    ]


FALLS = scores(
    (1, 5, False, 0.2, 0.4),
    (1, 10, True, 0.5, 0.75),
    (2, 15, False, 0.125, 0.25),
    (2, 20, True, 0.375, 0.5),
)


def gap(found: Sequence[SimpleNamespace], *pairs: str, stages: int = 2) -> tuple[float, float]:
    return stability(found, pairs or ("a-b",), stages=stages, split="test")


def test_a_curve_has_every_moment_once_with_the_mean_of_both_directions() -> None:
    others = scores((2, 20, True, 1.0, 1.0), pair="a-c")
    validation = scores((2, 20, True, 1.0, 1.0), split="validation")
    points = curve([*validation, *reversed(FALLS), *others], "a-b", split="test")
    assert [point[:3] for point in points] == [
        (1, 5, False),
        (1, 10, True),
        (2, 15, False),
        (2, 20, True),
    ]
    assert points[1] == Point(1, 10, True, 0.625)
    assert points[2].recall == 0.1875


def test_the_fall_is_from_the_end_of_the_stage_before_to_the_worst_of_the_last() -> None:
    assert gap(FALLS) == (0.1875, 0.625 - 0.1875)


def test_pairs_fall_on_their_own_and_are_then_averaged() -> None:
    later = scores(
        (1, 10, True, 0.5, 0.5), (2, 15, False, 1, 1), (2, 20, True, 0.25, 0.25), pair="b-c"
    )
    assert gap([*FALLS, *later], "a-b", "b-c") == ((0.1875 + 0.25) / 2, (0.4375 + 0.25) / 2)


def test_without_a_look_inside_the_stage_nothing_is_known() -> None:
    ends = [score for score in FALLS if score.final]
    assert all(math.isnan(value) for value in gap(ends))


def test_joint_training_has_no_stage_before() -> None:
    last = [score for score in FALLS if score.stage == 2]
    assert all(math.isnan(value) for value in gap(last))


def test_without_old_pairs_nothing_can_fall() -> None:
    fall = stability(FALLS, (), stages=2, split="test")
    assert all(math.isnan(value) for value in fall)


def test_a_score_without_queries_is_no_point() -> None:
    void = scores((2, 17, False, None, None))
    assert len(curve([*FALLS, *void], "a-b", split="test")) == 4
