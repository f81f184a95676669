"""Step times and memory that a run reports as its cost."""

import gc
import json
import time

import numpy as np
import pytest
import torch

from continual_mm.data.batch import Items
from continual_mm.data.dataset import Dataset
from continual_mm.definitions.scenario import MemorySettings, Strategy
from continual_mm.learning.learner import Learner
from continual_mm.plugins.replay import Replay
from continual_mm.runs.meters import Meter
from continual_mm.runs.reporter import RunReporter
from continual_mm.runs.run import run, train
from continual_mm.system.files import read_json

SIZES = {"video": 800, "audio": 700, "text": 5}
FLOAT, INDEX = 4, 8


@pytest.fixture
def timed(monkeypatch):
    """(times at which the steps of each stage end) -> seconds for a step."""

    def step_seconds(*stages):
        learner = None
        meter = Meter(RunReporter(), torch.device("cpu"))
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


def test_what_a_run_took_is_told_to_python_as_in_its_folder(scenario, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal((40, size)) for name, size in SIZES.items()}
    dataset = Dataset.from_arrays(arrays, split=np.repeat([0, 1, 2], [20, 10, 10]))
    replay = Strategy(name="r", memory=MemorySettings(items=6), plugins={"replay": {}})

    def trained():
        return run(scenario, replay, dataset, tmp_path, device="cpu", board=False).cost

    file = tmp_path / "small" / "r" / "seed-0" / "cost.json"
    first = trained()
    assert first == read_json(file)
    assert first["steps"] == sum(
        stage.steps or scenario.training.steps for stage in scenario.stages
    )
    assert first["peak_memory_bytes"] > first["memory_bytes"] > 0
    assert trained() == first  # it was finished earlier
    # A process that finds nothing left to train knows what those before it measured.
    file.unlink()
    kept = ("memory_bytes", "recalled_rows", "memory_items", "step_seconds")
    assert {key: trained()[key] for key in kept} == {key: first[key] for key in kept}

    alone = train(scenario, dataset, plugins=[Replay(weight=1.0)], memory=6, device="cpu").cost
    same = ("steps", "parameters", "memory_bytes", "recalled_rows", "memory_items", "device")
    assert {key: alone[key] for key in same} == {key: first[key] for key in same}
    assert alone["seconds"] > 0


def test_a_run_leaves_nothing_in_memory_that_only_the_collector_of_rings_would_free(
    scenario, tmp_path
):
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal((40, size)) for name, size in SIZES.items()}
    dataset = Dataset.from_arrays(arrays, split=np.repeat([0, 1, 2], [20, 10, 10]))
    plugins = {"replay": {"rows": 4}, "transport": {"rows": 4}, "ewc": {}}
    strategy = Strategy(name="s", memory=MemorySettings(items=6), plugins=plugins)
    gc.collect()
    gc.disable()
    try:
        run(scenario, strategy, dataset, tmp_path, device="cpu")
        left = {type(each) for each in gc.get_objects() if type(each) in (Learner, Items)}
    finally:
        gc.enable()
    assert not left


def test_peak_memory_is_that_of_the_run_not_of_earlier_ones(scenario):
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal((40, size)) for name, size in SIZES.items()}
    dataset = Dataset.from_arrays(arrays, split=np.repeat([0, 1, 2], [20, 10, 10]))
    first = train(scenario, dataset, device="cpu").cost["peak_memory_bytes"]
    much = 1 << 28
    np.ones(much, np.uint8)
    second = train(scenario, dataset, device="cpu").cost["peak_memory_bytes"]
    assert abs(second - first) < much / 4
