"""Interpolate: a stage's end lies between the weights before and after it."""

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from continual_mm.arrivals import plan
from continual_mm.data.dataset import Dataset
from continual_mm.definitions import Scenario, SpaceSettings, Stage, Training
from continual_mm.learning.learner import Learner
from continual_mm.learning.stream import Benchmark, benchmark
from continual_mm.memory import Memory
from continual_mm.plugins.freeze import Freeze
from continual_mm.plugins.interpolate import Interpolate
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.recollection import Recollection
from continual_mm.plugins.transport import Transport
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
        name="interpolate",
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


def test_old_weights_end_between_where_they_were_and_where_they_went(scenario, dataset):
    before = values(trained(scenario, dataset, stages=1))
    naive = values(trained(scenario, dataset))
    after = values(trained(scenario, dataset, Interpolate(towards_old=0.25)))
    for name in before.keys() - {"centroids"}:
        expected = 0.25 * before[name] + 0.75 * naive[name]
        torch.testing.assert_close(after[name], expected, rtol=0, atol=1e-6)
    new = naive.keys() - before.keys()
    assert new
    assert all(torch.equal(after[name], naive[name]) for name in new)
    assert not same(before, naive)


def test_centroids_stay_on_the_sphere_in_the_plane_of_both_ends(scenario, dataset):
    ends = [values(trained(scenario, dataset, stages=stages))["centroids"] for stages in (1, 2)]
    found = values(trained(scenario, dataset, Interpolate(towards_old=0.5)))["centroids"]
    assert not torch.allclose(*ends, atol=1e-3)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))
    middle = torch.nn.functional.normalize(ends[0] + ends[1], dim=1)
    torch.testing.assert_close(found, middle)


def test_all_the_way_back_is_bit_for_bit_where_it_was(scenario, dataset):
    before = values(trained(scenario, dataset, stages=1))
    assert same(before, values(trained(scenario, dataset, Interpolate(towards_old=1.0))))


def test_no_way_back_changes_nothing_and_keeps_nothing(scenario, dataset):
    plugin = Interpolate(towards_old=0.0)
    naive = values(trained(scenario, dataset, stages=3))
    assert same(naive, values(trained(scenario, dataset, plugin, stages=3)))
    assert plugin.state() == {}
    assert not same(naive, values(trained(scenario, dataset, Interpolate(), stages=3)))


def test_it_leaves_the_first_stage_alone(scenario, dataset):
    plugin = Interpolate(towards_old=1.0)
    naive = values(trained(scenario, dataset, stages=1))
    assert same(naive, values(trained(scenario, dataset, plugin, stages=1)))
    assert plugin.state() == {}


def test_each_stage_goes_back_to_the_end_of_the_one_before_it(scenario, dataset):
    second = values(trained(scenario, dataset, Interpolate(towards_old=1.0), stages=2))
    third = values(trained(scenario, dataset, Interpolate(towards_old=1.0), stages=3))
    assert any(".text." in name for name in second)
    assert same(second, third)


@pytest.mark.parametrize("first", [True, False])
def test_a_teacher_is_the_interpolated_space_whatever_the_order_of_the_plugins(
    first, scenario, dataset
):
    transport, interpolate = Transport(rows=16), Interpolate(towards_old=0.5)
    plugins = (interpolate, transport) if first else (transport, interpolate)
    learner = trained(scenario, dataset, *plugins, items=24)
    remembered = next(p for p in learner.plugins if isinstance(p, Recollection)).batch
    teacher = transport.state()
    for name in ("video", "audio", "text"):
        expected = learner.space.encode(name, remembered.features[name])
        torch.testing.assert_close(teacher[f"teacher/{name}"], expected)


def test_what_is_frozen_stays_bit_for_bit(scenario, dataset):
    frozen = values(trained(scenario, dataset, Freeze()))
    assert same(frozen, values(trained(scenario, dataset, Freeze(), Interpolate())))


def test_a_stage_that_goes_on_with_a_saved_state_goes_back_to_the_same_weights(scenario, dataset):
    class Successor(Plugin):
        """Takes over from another plugin in the middle of a stage."""

        def __init__(self, before: Interpolate) -> None:
            super().__init__()
            self.before, self.fresh = before, Interpolate(towards_old=0.5)

        def before_training_iteration(self, strategy, *args, **kwargs):
            if (strategy.stage, strategy.step) == (1, 5):
                self.fresh.load_state(load(save(self.before.state())))
                self.before.load_state({})

        def after_training_epoch(self, strategy, *args, **kwargs):
            self.fresh.after_training_epoch(strategy)

    plugin = Interpolate(towards_old=0.5)
    whole = values(trained(scenario, dataset, Interpolate(towards_old=0.5)))
    assert same(whole, values(trained(scenario, dataset, plugin, Successor(plugin))))


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_way_outside_zero_to_one_is_refused(share):
    with pytest.raises(ValueError, match=r"towards_old = .*: give a number from 0 to 1"):
        Interpolate(towards_old=share)
