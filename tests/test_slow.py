"""Slow: old towers learn at a part of the rate, and only they."""

import numpy as np
import pytest
import torch

from continual_mm.arrivals import plan
from continual_mm.data.dataset import Dataset
from continual_mm.definitions import Scenario, SpaceSettings, Stage, Training
from continual_mm.learning.learner import Learner
from continual_mm.learning.stream import Benchmark, benchmark
from continual_mm.memory import Memory
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.recollection import Recollection
from continual_mm.plugins.slow import Slow
from continual_mm.plugins.warmup import Warmup
from continual_mm.space.naming import modality_of, named_parameters
from continual_mm.space.space import JointSpace


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    dice = np.random.default_rng(1)
    shared = dice.standard_normal((120, 6))
    arrays = {
        name: (shared @ dice.standard_normal((6, size))).astype(np.float32)
        for name, size in (("video", 8), ("audio", 7), ("text", 5), ("depth", 4))
    }
    return Dataset.from_arrays(arrays, split=np.repeat([0, 1, 2], [80, 20, 20]))


@pytest.fixture
def scenario() -> Scenario:
    return Scenario(
        name="slow",
        space=SpaceSettings(dim=16, clusters=4, feature_dropout=0.0),
        training=Training(steps=12, batch_size=20, learning_rate=1e-2),
        stages=(
            Stage(add=("video", "audio")),
            Stage(add=("text",), pairs=("video-text",)),
            Stage(add=("depth",)),
        ),
    )


def begun(
    scenario: Scenario, dataset: Dataset, *plugins: Plugin, items: int | None = None
) -> tuple[Learner, Benchmark]:
    streams = benchmark(scenario, plan(scenario, dataset.card), dataset, seed=0)
    memory = None if items is None else Memory(items)
    first = [] if memory is None else [Recollection(memory)]
    learner = Learner(
        space=JointSpace(scenario.space), seed=0, plugins=[*first, *plugins], memory=memory
    )
    return learner, streams


def trained(
    scenario: Scenario,
    dataset: Dataset,
    *plugins: Plugin,
    stages: int = 2,
    items: int | None = None,
) -> Learner:
    learner, streams = begun(scenario, dataset, *plugins, items=items)
    for stage in range(stages):
        learner.learn(streams, stage)
    return learner


def values(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in learner.space.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


def brief(scenario: Scenario) -> Scenario:
    """The second stage takes one step, whose length is the rate times what Adam makes of it."""
    first, second, third = scenario.stages
    stages = (first, second.model_copy(update={"steps": 1}), third)
    return scenario.model_copy(update={"stages": stages})


def names_by_pace(learner: Learner) -> dict[float, set[str]]:
    names = {parameter: name for name, parameter in named_parameters(learner.space)}
    return {
        group["pace"]: {names[parameter] for parameter in group["params"]}
        for group in learner.optimizer.param_groups
    }


def test_a_step_of_an_old_tower_is_shorter_by_the_ratio_and_a_new_towers_is_not(scenario, dataset):
    scenario = brief(scenario)
    before = values(trained(scenario, dataset, stages=1))
    naive = values(trained(scenario, dataset))
    slow = values(trained(scenario, dataset, Slow(ratio=0.25)))
    moved = 0
    for name, value in before.items():
        if modality_of(name) is None:
            assert torch.equal(slow[name], naive[name])
        else:
            expected = value + 0.25 * (naive[name] - value)
            torch.testing.assert_close(slow[name], expected, rtol=0, atol=1e-6)
            moved += int(not torch.equal(naive[name], value))
    assert moved > 4
    new = naive.keys() - before.keys()
    assert new
    for name in new:
        torch.testing.assert_close(slow[name], naive[name], rtol=0, atol=1e-6)


def test_with_ratio_one_it_changes_nothing_and_with_less_it_does(scenario, dataset):
    naive = values(trained(scenario, dataset, stages=3))
    assert same(naive, values(trained(scenario, dataset, Slow(ratio=1.0), stages=3)))
    assert not same(naive, values(trained(scenario, dataset, Slow(), stages=3)))


def test_it_leaves_the_first_stage_alone(scenario, dataset):
    naive = values(trained(scenario, dataset, stages=1))
    assert same(naive, values(trained(scenario, dataset, Slow(ratio=0.0), stages=1)))


def test_with_ratio_zero_old_towers_stay_bit_for_bit_while_all_else_learns(scenario, dataset):
    before = values(trained(scenario, dataset, Slow(ratio=0.0), stages=1))
    after = values(trained(scenario, dataset, Slow(ratio=0.0)))
    towers = {name for name in before if modality_of(name) is not None}
    assert all(torch.equal(before[name], after[name]) for name in towers)
    assert not torch.equal(before["log_scale"], after["log_scale"])
    weight = "encoders.text.unit.fc.weight"
    untrained = values(trained(brief(scenario), dataset, Slow(ratio=0.0)))
    assert not torch.equal(untrained[weight], after[weight])


def test_what_arrived_last_is_slow_at_the_next_stage(scenario, dataset):
    learner = trained(scenario, dataset, Slow(ratio=0.5), stages=2)
    assert {modality_of(n) for n in names_by_pace(learner)[0.5]} == {"video", "audio"}
    assert {modality_of(n) for n in names_by_pace(learner)[1.0]} == {"text", None}
    learner = trained(scenario, dataset, Slow(ratio=0.5), stages=3)
    assert {modality_of(n) for n in names_by_pace(learner)[0.5]} == {"video", "audio", "text"}
    assert {modality_of(n) for n in names_by_pace(learner)[1.0]} == {"depth", None}


def test_moments_survive_the_division_into_groups(scenario, dataset):
    learner = trained(scenario, dataset, Slow(ratio=0.5), stages=3)
    steps = {
        name: int(learner.optimizer.state[parameter]["step"])
        for name, parameter in named_parameters(learner.space)
    }
    assert steps["encoders.audio.unit.fc.weight"] == 36 - 12  # no audio in the second stage
    assert steps["encoders.video.unit.fc.weight"] == 36
    assert steps["encoders.depth.unit.fc.weight"] == 12


def test_towers_that_wait_for_a_warm_up_are_slow_afterwards(scenario, dataset):
    learner = trained(scenario, dataset, Warmup(share=0.5), Slow(ratio=0.5))
    assert {modality_of(n) for n in names_by_pace(learner)[0.5]} == {"video", "audio"}
    other = trained(scenario, dataset, Slow(ratio=0.5), Warmup(share=0.5))
    assert same(values(learner), values(other))


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_a_ratio_outside_zero_to_one_is_refused(ratio):
    with pytest.raises(ValueError, match=r"slow\.ratio = .*: give a number from 0 to 1"):
        Slow(ratio=ratio)
