"""What a trial is judged by, with values known by hand."""

import pickle

import numpy as np
import pytest

from continual_mm.definitions.modality import Pair
from continual_mm.evaluation.pairs import Evaluation, PairRanks
from continual_mm.runs.history import Score
from continual_mm.runs.reporter import Halt, HaltedError
from continual_mm.runs.tuning.goal import Goal, Pruner


@pytest.fixture(scope="module")
def goal(small_scenario):
    return Goal.of(small_scenario("small", 10).arrivals, "mean_reciprocal_rank")


def score(stage, step, pair, value, *, split="validation"):
    return Score(stage, step, True, split, pair, "there", 9, 0.1, 0.9, 0.9, 0.9, 1.0, value)


def test_the_value_is_a_harmonic_mean_where_there_are_old_and_new_pairs(goal):
    first = [score(1, 10, "audio-video", value) for value in (0.2, 0.4)]
    tested = score(1, 10, "audio-video", 0.9, split="test")
    last = {"audio-video": 0.75, "text-video": 0.25, "audio-text": 1.0}
    found = goal.values([*first, tested, *(score(2, 14, *each) for each in last.items())])
    assert found == pytest.approx({(0, 10): 0.3, (1, 14): 0.375})


def evaluation(split, rank):
    """Audio and video after stage 1, every query of which has the same rank."""
    pair = Pair.parse("audio-video")
    ranks = {direction: np.full(9, rank) for direction in pair.directions}
    found = PairRanks(pair, np.arange(9), ranks, dict.fromkeys(ranks, 1 / 9))
    return Evaluation(stage=0, step=10, final=True, split=split, pairs=(found,))


def test_a_run_ends_below_the_least_value_on_validation_items_only(goal):
    prune = Pruner(goal, {(0, 10): 0.5})
    prune(evaluation("validation", 1.0), None)
    prune(evaluation("test", 2.0), None)
    with pytest.raises(HaltedError, match=r"in stage 1, at step 10: 0\.3333") as caught:
        prune(evaluation("validation", 2.0), None)
    assert caught.value.halt == Halt((0, 10), pytest.approx(1 / 3))


def test_pruners_and_what_they_raise_go_from_process_to_process(goal):
    pruner = Pruner(goal, {(0, 10): 0.5})
    assert pickle.loads(pickle.dumps(pruner)) == pruner
    error = HaltedError(Halt((0, 10), 0.25), 0.5)
    back = pickle.loads(pickle.dumps(error))
    assert (back.halt, str(back)) == (error.halt, str(error))
