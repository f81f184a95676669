"""When stages begin, and the lines that show it."""

import pytest

from continual_mm.definitions.arrivals import plan
from continual_mm.definitions.modality import DatasetCard, Kind, Modality
from continual_mm.definitions.scenario import Scenario, Stage, Training
from continual_mm.evaluation.pairs import Evaluation
from continual_mm.runs.board.schedule import StageSchedule, schedule_table

CARD = DatasetCard(
    "mine", tuple(Modality(n, Kind.VECTOR, (4,)) for n in ("video", "audio", "text")), (9, 3, 3), ""
)


def schedule(*, every=0, joint=False, cumulative=False):
    scenario = Scenario(
        name="small",
        training=Training(steps=10, evaluate_every=every),
        stages=(
            Stage(add=("video", "audio")),
            Stage(add=("text",), pairs=("video-text",), steps=7),
        ),
    )
    return StageSchedule.of(
        plan(scenario, CARD), joint=joint, cumulative=cumulative, common=scenario.training
    )


def evaluations(every):
    """The evaluations of a run of 10 and 7 steps, as a learner makes them."""
    inside = {0: range(every, 10, every), 1: range(every, 7, every)} if every else {0: (), 1: ()}
    first = [Evaluation(0, step, False, "test", ()) for step in inside[0]]
    second = [Evaluation(1, 10 + step, False, "test", ()) for step in inside[1]]
    ends = Evaluation(0, 10, True, "test", ()), Evaluation(1, 17, True, "test", ())
    return [*first, ends[0], *second, ends[1]]


@pytest.mark.parametrize("every", [0, 1, 3, 4, 9, 20])
def test_the_stage_is_one_and_then_two_from_the_first_step_of_the_second_on(every):
    points = []
    for evaluation in evaluations(every):
        points += schedule(every=every).stages_at(evaluation).items()
    steps = [step for step, _ in points]
    assert steps == sorted(set(steps))  # TensorBoard would drop what goes back or repeats
    assert (steps[0], steps[-1]) == (0, 17)
    assert {10, 11} <= set(steps)
    assert all(stage == 1 + (step > 10) for step, stage in points)


def test_joint_training_has_one_stage():
    joint = schedule(joint=True)
    assert joint.starts == {1: 0}
    assert joint.trainings[1].steps == 17
    end = Evaluation(1, 17, True, "test", ())
    assert joint.stages_at(end) == {0: 2, 17: 2}
    assert "at once, in 17 steps" in schedule_table(joint)


def test_cumulative_training_keeps_the_stages_and_says_what_else_they_train():
    plain, cumulative = schedule(), schedule(cumulative=True)
    assert cumulative.starts == plain.starts
    assert schedule_table(cumulative).startswith(schedule_table(plain))
    assert schedule_table(cumulative).endswith(
        "also trains the items and pairs of all stages before it."
    )


def test_the_table_tells_what_arrives_and_what_is_trained_when():
    *_, first, second = schedule_table(schedule()).splitlines()
    assert [cell.strip() for cell in first.split("|")] == [
        "", "1", "0", "10", "video, audio", "audio-video", "",
    ]  # fmt: skip
    assert [cell.strip() for cell in second.split("|")] == [
        "", "2", "10", "7", "text", "text-video", "",
    ]  # fmt: skip
