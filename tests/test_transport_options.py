"""Transport's trust, budget and unbalanced plans, in training."""

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
        for name, size in (("video", 8), ("audio", 7), ("text", 5))
    }
    return Dataset.from_arrays(arrays, split=np.repeat([0, 1, 2], [80, 20, 20]))


def scenario(steps: int = 12, rate: float = 1e-2) -> Scenario:
    return Scenario(
        name="kept",
        space=SpaceSettings(dim=16, clusters=4, feature_dropout=0.0),
        training=Training(steps=steps, batch_size=20, learning_rate=rate),
        stages=(
            Stage(add=("video", "audio"), steps=12),
            Stage(add=("text",), pairs=("video-text",)),
        ),
    )


def begun(dataset: Dataset, *plugins: Plugin, **chosen: float) -> tuple[Learner, Benchmark]:
    chosen = scenario(**chosen)
    streams = benchmark(chosen, plan(chosen, dataset.card), dataset, seed=0)
    memory = Memory(24)
    all_plugins = [Recollection(memory), *plugins]
    space = JointSpace(chosen.space)
    return Learner(space=space, seed=0, plugins=all_plugins, memory=memory), streams


def trained(dataset: Dataset, *plugins: Plugin, stages: int = 2, **chosen: float) -> Learner:
    learner, streams = begun(dataset, *plugins, **chosen)
    for stage in range(stages):
        learner.learn(streams, stage)
    return learner


def values(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in learner.space.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


class Look(Plugin):
    """Calls a function in each step of the second stage, when all terms are there."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function, self.calls = function, 0

    def before_backward(self, strategy, *args, **kwargs):
        if strategy.stage == 1:
            self.function(strategy)
            self.calls += 1


def terms_of(strategy: Learner) -> dict[str, torch.Tensor]:
    return {name: v for name, v in strategy.terms.items() if name.startswith("transport")}


OPTIONS = {
    "trust": {"trust": 0.5},
    "budget": {"budget": 0.05},
    "unbalanced": {"unbalanced": 0.5},
    "right_only": {"right_only": 1},
    "right_only and trust": {"right_only": 1, "trust": 0.5},
    "all": {"trust": 0.7, "budget": 0.1, "unbalanced": 1.0, "right_only": 1},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_it_changes_training_but_not_the_first_stage(name, dataset):
    plain = values(trained(dataset, Transport(rows=16)))
    assert not same(plain, values(trained(dataset, Transport(rows=16, **OPTIONS[name]))))
    naive = values(trained(dataset, stages=1))
    assert same(naive, values(trained(dataset, Transport(rows=16, **OPTIONS[name]), stages=1)))


@pytest.mark.parametrize("rows", [16, 24])
@pytest.mark.parametrize("name", OPTIONS)
def test_a_fresh_plugin_with_a_state_from_inside_a_stage_goes_on_exactly(name, rows, dataset):
    plugin = Transport(rows=rows, **OPTIONS[name])
    saved = []

    def check(strategy):
        before = terms_of(strategy)
        if saved:
            fresh = Transport(rows=rows, **OPTIONS[name])
            fresh.load_state(load(saved[-1]))
            strategy.terms = {}
            fresh.before_backward(strategy)
            assert before
            assert same(before, strategy.terms)
            assert same(plugin.state(), fresh.state())
        saved.append(save(plugin.state()))

    trained(dataset, plugin, look := Look(check))
    assert look.calls == 12


@pytest.mark.parametrize("name", OPTIONS)
def test_at_the_teacher_there_is_no_divergence(name, dataset):
    def check(strategy):
        if not strategy.step:
            (value,) = terms_of(strategy).values()
            assert abs(float(value)) < 1e-3

    trained(dataset, Transport(weight=1.0, rows=24, **OPTIONS[name]), look := Look(check))
    assert look.calls == 12


def drift(dataset: Dataset, *, rate: float, **options: float) -> float:
    """Divergence of the last steps of a stage."""
    seen = []

    class Watched(Transport):
        def _divergences(self, *args, **kwargs):
            found = super()._divergences(*args, **kwargs)
            seen.extend(float(value.detach()) for value in found.values())
            return found

    plugin = Watched(rows=24, **options)
    trained(dataset, plugin, steps=120, rate=rate)
    return float(np.mean(seen[-10:]))


@pytest.mark.parametrize("rate", [1e-2, 1e-3])
def test_a_tight_budget_is_where_the_drift_ends_and_one_never_reached_is_naive(rate, dataset):
    naive = drift(dataset, rate=rate, weight=1e-9)
    for budget in (0.15 * naive, 0.5 * naive):
        assert drift(dataset, rate=rate, budget=budget) == pytest.approx(budget, rel=0.2)
    assert drift(dataset, rate=rate, budget=1000.0) == pytest.approx(naive, rel=0.01)


def test_the_gauge_is_multiplied_along_with_the_weight_that_was_found(dataset):
    free, weights = [], []

    def watch(strategy):
        gauge, (value,) = strategy.terms["gauge"], terms_of(strategy).values()
        weight = plugin.curves["transport/weight"]
        weights.append(float(weight))
        free.append(float(gauge) / (0.5 * float(weight)) if weight else float(gauge + value))

    plugin = Transport(rows=24, budget=0.05, gauge=0.5)
    trained(dataset, plugin, Look(watch), steps=60)
    assert weights[0] == free[0] == 0.0
    assert max(weights) > 0.1
    assert 1e-4 < free[-1] < 1.0  # a mean squared distance of unit vectors


def test_parameters_out_of_range_are_refused():
    for wrong in ({"trust": 1.5}, {"budget": -1.0}, {"unbalanced": np.nan}, {"right_only": 2}):
        with pytest.raises(ValueError, match=rf"transport\.{next(iter(wrong))} = "):
            Transport(**wrong)
