"""What a run's event files hold, read back by TensorBoard itself."""

import random

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.arrivals import plan
from continual_mm.definitions.modality import pair
from continual_mm.definitions.scenario import Scenario, SpaceSettings, Stage, Strategy, Training
from continual_mm.evaluation.pairs import Evaluation, Gallery, score_pair
from continual_mm.runs.board.board import Board
from continual_mm.runs.board.schedule import StageSchedule
from continual_mm.runs.run import run

NAMES = ("video", "audio", "text")
SCENARIO = Scenario(
    name="small",
    space=SpaceSettings(dim=8, clusters=3),
    training=Training(steps=25, batch_size=8, evaluate_every=10),
    stages=(Stage(add=("video", "audio")), Stage(add=("text",), pairs=("video-text",))),
)
NAIVE = Strategy(name="naive")


@pytest.fixture(scope="module")
def dataset(features):
    return Dataset.from_arrays(features(), split=np.repeat([0, 1, 2], 30))


def events(folder):
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    return found.Reload()


def steps(found, tag):
    return [event.step for event in found.Scalars(tag)]


def values(found, tag):
    return {event.step: event.value for event in found.Scalars(tag)}


@pytest.fixture(scope="module")
def watched_run(dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("watch")
    history = run(SCENARIO, NAIVE, dataset, out, device="cpu")
    return history, events(out / "small" / "naive" / "seed-0" / "events")


def test_every_tag_is_at_optimiser_steps_over_all_stages(watched_run):
    _, found = watched_run
    curves = [0, 10, 20, 25, 35, 45]  # every ten steps of each stage, before the step is made
    evaluated = [10, 20, 25, 35, 45, 50]
    for tag in ("loss/total", "norm/video", "logit scale", "learning rate"):
        assert steps(found, tag) == curves, tag
    assert steps(found, "loss/contrast/audio-video") == curves[:3]
    assert steps(found, "loss/contrast/text-video") == curves[3:]
    for split in ("test", "validation"):
        assert steps(found, f"{split}/recall@1/audio-video/audio to video") == evaluated
        assert steps(found, f"{split}/recall@1/audio-video/mean") == evaluated
        assert steps(found, f"{split}/recall@1/text-video/mean") == evaluated[3:]
    assert values(found, "stage") == {0: 1, 10: 1, 20: 1, 25: 1, 26: 2, 35: 2, 45: 2, 50: 2}
    assert steps(found, "forgetting/audio-video") == [25, 35, 45, 50]
    assert "forgetting/text-video" not in found.Tags()["scalars"]
    for tag in found.Tags()["scalars"]:
        if tag.startswith("headline/"):
            assert steps(found, tag) == [50], tag
    for tag in found.Tags()["images"]:
        assert [event.step for event in found.Images(tag)] == [25, 50], tag


def test_curves_agree_with_the_scores(watched_run):
    history, found = watched_run
    mean = values(found, "test/recall@1/audio-video/mean")
    assert mean[25] == pytest.approx(history.recall("audio-video", stage=1))
    assert mean[50] == pytest.approx(history.recall("audio-video"))
    lost = values(found, "forgetting/audio-video")
    expected = {step: mean[25] - mean[step] for step in (25, 35, 45, 50)}
    assert lost == pytest.approx(expected, abs=1e-6)
    assert values(found, "headline/forgetting")[50] == pytest.approx(lost[50])
    headline = values(found, "headline/harmonic mean")[50]
    assert headline == pytest.approx(history.headline()["harmonic_mean"])
    # A point is of the space before its step.
    assert values(found, "logit scale")[0] == pytest.approx(SCENARIO.space.scale)


def test_the_weight_that_a_budget_led_to_is_a_curve_of_its_own(dataset, tmp_path, changed):
    held = Strategy(name="held", memory={"items": 12}, plugins={"transport": {"budget": 1e-4}})
    run(changed(SCENARIO, feature_dropout=0.0), held, dataset, tmp_path, device="cpu")
    weight = values(events(tmp_path / "small" / "held" / "seed-0" / "events"), "transport/weight")
    assert list(weight) == [25, 35, 45]
    assert weight[25] == 0.0
    assert weight[35] > 0


def test_a_resumed_run_hides_what_was_written_after_its_checkpoint(
    watched_run, dataset, tmp_path, stop_at
):
    with pytest.raises(KeyboardInterrupt):
        run(SCENARIO, NAIVE, dataset, tmp_path, device="cpu", reporter=stop_at(48))
    run(SCENARIO, NAIVE, dataset, tmp_path, device="cpu")
    _, whole = watched_run
    resumed = events(tmp_path / "small" / "naive" / "seed-0" / "events")
    assert resumed.Tags()["scalars"] == whole.Tags()["scalars"]
    for tag in whole.Tags()["scalars"]:
        # Both processes took the point before the first step after the checkpoint.
        assert sorted(set(steps(resumed, tag))) == steps(whole, tag), tag
        assert steps(resumed, tag) == sorted(steps(resumed, tag)), tag
        assert values(resumed, tag) == values(whole, tag), tag


def test_the_board_changes_neither_generators_nor_embeddings(dataset, tmp_path):
    schedule = StageSchedule.of(plan(SCENARIO, dataset.card), joint=False, common=SCENARIO.training)
    board = Board(tmp_path, {}, dataset, schedule)
    rows = torch.from_numpy(dataset.rows_of(2))
    rng = torch.Generator().manual_seed(0)
    drawn = {name: torch.randn(len(rows), 8, generator=rng) for name in NAMES}
    gallery = Gallery(drawn, dict.fromkeys(NAMES, rows))
    found = score_pair(pair("audio", "video"), drawn, gallery.rows)
    embeddings = {name: part.clone() for name, part in gallery.embeddings.items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    board(Evaluation(1, 50, True, "test", (found,)), gallery)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]
    assert all(torch.equal(gallery.embeddings[name], embeddings[name]) for name in NAMES)
    assert (tmp_path / "projector_config.pbtxt").exists()


def test_forgetting_is_from_the_best_stage_end_and_joint_training_has_none(
    dataset, tmp_path, changed
):
    stages = tuple(Stage(add=(name,)) for name in NAMES)
    three = changed(SCENARIO, name="three", stages=stages, steps=3, clusters=0, evaluate_every=0)
    history = run(three, NAIVE, dataset, tmp_path, device="cpu")
    found = events(tmp_path / "three" / "naive" / "seed-0" / "events")
    table = history.matrix()[:, [str(p) for p in history.births].index("audio-video")]
    assert values(found, "forgetting/audio-video") == pytest.approx(
        {6: 0.0, 9: table[1] - table[2]}, abs=1e-6
    )
    run(SCENARIO, Strategy(name="joint", joint=True), dataset, tmp_path, device="cpu")
    joint = events(tmp_path / "small" / "joint" / "seed-0" / "events").Tags()["scalars"]
    assert not [tag for tag in joint if tag.startswith("forgetting/")]
