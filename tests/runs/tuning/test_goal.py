"""What a trial is judged by, with values known by hand."""

import pickle

import numpy as np
import pytest

from continual_mm.definitions.arrivals import plan
from continual_mm.definitions.modality import DatasetCard, Kind, Modality, Pair
from continual_mm.definitions.scenario import Scenario, Stage, Training
from continual_mm.evaluation.pairs import Evaluation, PairRanks
from continual_mm.runs.history import Score
from continual_mm.runs.listener import Halt, HaltedError
from continual_mm.runs.tuning.goal import Goal, Judge, moments

NAMES = ("video", "audio", "text")
CARD = DatasetCard("mine", tuple(Modality(n, Kind.VECTOR, (4,)) for n in NAMES), (9, 3, 3), "")
ARRIVALS = plan(
    Scenario(
        name="small",
        training=Training(steps=10, evaluate_every=4),
        stages=(
            Stage(add=("video", "audio")),
            Stage(add=("text",), pairs=("video-text",), steps=7),
        ),
    ),
    CARD,
)
GOAL = Goal.of(ARRIVALS, "recall_at_1")


def score(stage: int, step: int, pair: str, value: float, *, split: str = "validation") -> Score:
    return Score(stage, step, True, split, pair, "there", 9, 0.1, value, 0.9, 0.9, 1.0, 0.9)


def test_the_value_is_a_harmonic_mean_where_there_are_old_and_new_pairs() -> None:
    found = GOAL.values(
        [
            score(1, 10, "audio-video", 0.2),
            score(1, 10, "audio-video", 0.4),
            score(2, 14, "audio-video", 0.75),
            score(2, 14, "text-video", 0.25),
            score(2, 14, "audio-text", 1.0),
        ]
    )
    assert found == pytest.approx({(0, 10): 0.3, (1, 14): 0.375})


def test_scores_on_test_items_are_not_looked_at() -> None:
    tested = [score(1, 10, "audio-video", 0.2, split="test")]
    assert GOAL.values(tested) == {}


def test_moments_are_those_at_which_a_run_is_evaluated() -> None:
    assert moments(ARRIVALS) == [(0, 4), (0, 8), (0, 10), (1, 14), (1, 17)]


def evaluation(split: str, rank: float) -> Evaluation:
    """Audio and video after stage 1, every query of which has the same rank."""
    pair = Pair.parse("audio-video")
    ranks = {direction: np.full(9, rank) for direction in pair.directions}
    found = PairRanks(pair, np.arange(9), ranks, dict.fromkeys(ranks, 1 / 9))
    return Evaluation(stage=0, step=10, final=True, split=split, pairs=(found,))


def test_a_judge_ends_a_run_below_the_least_value_on_validation_items_only() -> None:
    judge = Judge(Goal.of(ARRIVALS, "mean_reciprocal_rank"), {(0, 10): 0.5})
    judge(evaluation("validation", 1.0), None)
    judge(evaluation("test", 2.0), None)
    with pytest.raises(HaltedError, match=r"in stage 1, at step 10: 0\.3333") as caught:
        judge(evaluation("validation", 2.0), None)
    assert caught.value.halt == Halt((0, 10), pytest.approx(1 / 3))


def test_judge_and_verdict_go_from_process_to_process() -> None:
    judge = Judge(GOAL, {(0, 10): 0.5})
    assert pickle.loads(pickle.dumps(judge)) == judge
    error = HaltedError(Halt((0, 10), 0.25), 0.5)
    back = pickle.loads(pickle.dumps(error))
    assert (back.halt, str(back)) == (error.halt, str(error))
