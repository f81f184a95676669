"""What a run measured: curves inside stages and how deep old pairs fell."""

import math
from dataclasses import replace

import numpy as np
import pytest

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.arrivals import plan
from continual_mm.definitions.scenario import Scenario, SpaceSettings, Stage, Training
from continual_mm.evaluation.drift import Geometry
from continual_mm.runs.history import History, Score
from continual_mm.runs.run import train
from continual_mm.space.space import JointSpace

SCENARIO = Scenario(
    name="small",
    space=SpaceSettings(dim=8, clusters=3),
    training=Training(steps=4, batch_size=8, learning_rate=1e-2, evaluate_every=1),
    stages=(Stage(add=("video", "audio")), Stage(add=("text",), pairs=("video-text",))),
)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    rng = np.random.default_rng(3)
    shared = rng.standard_normal((90, 5))
    arrays = {n: shared @ rng.standard_normal((5, 6)) for n in ("video", "audio", "text")}
    return Dataset.from_arrays(arrays, split=np.repeat([0, 1, 2], 30))


@pytest.fixture
def history(dataset: Dataset) -> History:
    """Two stages by hand: audio-video goes 0.8 | 0.2, 0.6, directions 0.1 apart from that."""
    history = History(arrivals=plan(SCENARIO, dataset.card), space=JointSpace(SCENARIO.space))
    recalls = {(1, 4, True): 0.8, (2, 6, False): 0.2, (2, 8, True): 0.6}
    for (stage, step, final), recall in recalls.items():
        for direction, sign in (("audio to video", 1), ("video to audio", -1)):
            score = Score(
                stage=stage,
                step=step,
                final=final,
                split="test",
                pair="audio-video",
                direction=direction,
                queries=30,
                chance=1 / 30,
                recall_at_1=recall + 0.1 * sign,
                recall_at_5=1.0,
                recall_at_10=1.0,
                median_rank=1.0,
                mean_reciprocal_rank=1.0,
            )
            history.scores.append(score)
    return history


def test_a_curve_shows_what_stage_ends_do_not(history: History) -> None:
    steps, recalls = history.curve("video-audio")
    assert steps.tolist() == [4, 6, 8]
    np.testing.assert_allclose(recalls, [0.8, 0.2, 0.6])
    assert history.recall("audio-video", stage=1) == pytest.approx(0.8)


@pytest.mark.parametrize("stage", [-1, 0, 3])
def test_a_stage_that_the_run_does_not_have_is_refused(history: History, stage: int) -> None:
    with pytest.raises(IndexError, match=f"no stage {stage} in this run; it has stages 1 to 2"):
        history.recall("audio-video", stage=stage)


def test_the_headline_tells_the_worst_moment_and_how_far_it_lies_below(history: History) -> None:
    headline = history.headline()
    assert headline["old_pairs"] == pytest.approx(0.6)
    assert headline["worst_old_pairs"] == pytest.approx(0.2)
    assert headline["stability_gap"] == pytest.approx(0.6)
    assert math.isnan(headline["forgetting"])  # the pairs born last were not scored


def test_each_split_has_its_own_gap(history: History) -> None:
    assert math.isnan(history.headline(split="validation")["stability_gap"])
    history.scores = [replace(score, split="validation") for score in history.scores]
    assert history.headline(split="validation")["stability_gap"] == pytest.approx(0.6)
    assert math.isnan(history.headline()["stability_gap"])
    assert history.curve("audio-video")[0].size == 0


def test_without_evaluations_inside_the_stage_there_is_no_gap(history: History) -> None:
    history.scores = [score for score in history.scores if score.final]
    headline = history.headline()
    assert headline["old_pairs"] == pytest.approx(0.6)
    assert math.isnan(headline["worst_old_pairs"])
    assert math.isnan(headline["stability_gap"])


def test_a_pair_that_is_not_there_has_no_curve(history: History) -> None:
    for ask in (history.curve, history.recall):
        with pytest.raises(KeyError, match=r"no pair 'audio-smell'.*audio-text, audio-video"):
            ask("audio-smell")


def test_a_trained_run_has_points_inside_its_stages(dataset: Dataset) -> None:
    history = train(SCENARIO, dataset, device="cpu")
    steps, recalls = history.curve("audio-video", split="validation")
    assert steps.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    headline = history.headline(split="validation")
    assert headline["worst_old_pairs"] == pytest.approx(recalls[4:].min())
    assert headline["stability_gap"] == pytest.approx(recalls[3] - recalls[4:].min())
    assert headline["worst_old_pairs"] <= headline["old_pairs"]
    assert [geometry.step for geometry in history.geometry] == list(range(1, 9))


def test_geometry_comes_back_as_it_was_written() -> None:
    geometry = Geometry(2, 8, True, {"a-b": 0.5}, 0.25, {"a": 1.0}, {"a": 0.5}, {"a-b": 0.125})
    assert Geometry.from_json(geometry.as_json()) == geometry
    unknown = Geometry.from_json({**geometry.as_json(), "rotation": None, "moved": {"a": None}})
    assert math.isnan(unknown.rotation)
    assert math.isnan(unknown.moved["a"])
