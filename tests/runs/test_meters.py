"""Step times and memory that a run reports as its cost."""

import json
import time

import numpy as np
import pytest

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.scenario import MemorySettings, Strategy
from continual_mm.runs.meters import Meter
from continual_mm.runs.reporter import RunReporter
from continual_mm.runs.run import run

SIZES = {"video": 800, "audio": 700, "text": 5}
FLOAT, INDEX = 4, 8


@pytest.fixture
def timed(monkeypatch):
    """(times at which the steps of each stage end) -> seconds for a step."""

    def step_seconds(*stages):
        learner = None
        meter = Meter(RunReporter())
        for ends in stages:
            meter.before_training_exp(learner)
            for end in ends:
                monkeypatch.setattr(time, "perf_counter", lambda end=end: end)
                meter.after_training_iteration(learner)
        return meter.step_seconds

    return step_seconds


def test_step_time_is_the_median_of_the_last_stage_if_that_has_two_steps(timed):
    assert timed([0.0, 1.0, 2.0, 62.0, 63.0]) == 1.0
    assert timed([0.0, 1.0, 2.0], [10.0, 13.0, 16.0]) == 3.0
    assert timed([5.0]) is None
    assert timed([0.0, 1.0], []) is None


@pytest.mark.parametrize(
    ("plugins", "size"),
    [
        ({}, 8),
        ({"pair_lora": {"rank": 2}}, 16),
        ({"expand": {"size": 3, "old_pairs": 0, "emergent": 0.0}}, 8 + 2 * 3),
    ],
)
def test_the_size_of_vectors_is_that_of_all_which_an_item_is_compared_by(
    scenario, tmp_path, plugins, size
):
    # Pair LoRA: a video has one vector for the sound and one for the caption, of 8 numbers each.
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal((40, size)) for name, size in SIZES.items()}
    dataset = Dataset.from_arrays(arrays, split=np.repeat([0, 1, 2], [20, 10, 10]))
    strategy = Strategy(name="s", plugins=plugins)
    history = run(scenario, strategy, dataset, tmp_path, device="cpu", board=False)
    cost = json.loads((tmp_path / "small" / "s" / "seed-0" / "cost.json").read_text())
    assert cost["vector_size"] == size
    if "pair_lora" not in plugins:
        assert history.space.encode("video", arrays["video"][:1]).shape == (1, size)


def test_memory_is_measured_with_the_items_that_the_last_stage_was_trained_with(scenario, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal((40, size)) for name, size in SIZES.items()}
    dataset = Dataset.from_arrays(arrays, split=np.repeat([0, 1, 2], [20, 10, 10]))
    replay = Strategy(name="r", memory=MemorySettings(items=6), plugins={"replay": {}})
    run(scenario, replay, dataset, tmp_path, device="cpu", board=False)
    cost = json.loads((tmp_path / "small" / "r" / "seed-0" / "cost.json").read_text())
    features = 6 * (SIZES["video"] + SIZES["audio"]) * FLOAT
    # At the end half of the items would be of the second stage, which has no audio.
    assert features < cost["memory_bytes"] < features + 6 * 16 * INDEX
    assert cost["memory_items"] == 6
