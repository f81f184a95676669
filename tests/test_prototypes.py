"""Prototypes: current rows keep their places among the old centroids."""

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from continual_mm.arrivals import plan
from continual_mm.data.dataset import Dataset
from continual_mm.definitions import Scenario, SpaceSettings, Stage, Training
from continual_mm.learning.learner import Learner
from continual_mm.learning.stream import Benchmark, benchmark
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.prototypes import Prototypes
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


def scenario(steps: int = 12) -> Scenario:
    return Scenario(
        name="kept",
        space=SpaceSettings(dim=16, clusters=4, feature_dropout=0.0),
        training=Training(steps=steps, batch_size=20, learning_rate=1e-2),
        stages=(Stage(add=("video", "audio")), Stage(add=("text",), pairs=("video-text",))),
    )


def begun(dataset: Dataset, *plugins: Plugin, steps: int = 12) -> tuple[Learner, Benchmark]:
    chosen = scenario(steps)
    streams = benchmark(chosen, plan(chosen, dataset.card), dataset, seed=0)
    return Learner(space=JointSpace(chosen.space), seed=0, plugins=plugins), streams


def trained(dataset: Dataset, *plugins: Plugin, stages: int = 2, steps: int = 12) -> Learner:
    learner, streams = begun(dataset, *plugins, steps=steps)
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
    return {name: v for name, v in strategy.terms.items() if name.startswith("prototypes")}


def test_it_changes_training_and_with_no_weight_it_does_not(dataset):
    naive = values(trained(dataset))
    none = Prototypes(weight=0.0)
    assert same(naive, values(trained(dataset, none)))
    assert none.state() == {}
    assert not same(naive, values(trained(dataset, Prototypes(weight=3.0))))


def test_it_leaves_the_first_stage_alone(dataset):
    naive = values(trained(dataset, stages=1))
    assert same(naive, values(trained(dataset, Prototypes(), stages=1)))


def test_at_the_teacher_there_is_no_divergence_and_no_pull(dataset):
    def check(strategy):
        if strategy.step:
            return
        found = terms_of(strategy)
        assert found.keys() == {"prototypes/video"}
        loss = torch.stack(list(found.values())).sum()
        weights = list(strategy.space.tower("video").parameters())
        pulls = torch.autograd.grad(loss, weights, retain_graph=True)
        assert abs(float(loss)) < 1e-4
        assert max(float(pull.abs().max()) for pull in pulls) < 2e-3

    trained(dataset, Prototypes(weight=1.0), look := Look(check))
    assert look.calls == 12


def test_a_fresh_plugin_with_a_state_from_inside_a_stage_gives_the_same_terms(dataset):
    plugin = Prototypes()

    def check(strategy):
        before = terms_of(strategy)
        fresh = Prototypes()
        fresh.load_state(load(save(plugin.state())))
        strategy.terms = {}
        fresh.before_backward(strategy)
        assert before.keys() == strategy.terms.keys() == {"prototypes/video"}
        assert same(before, strategy.terms)

    trained(dataset, plugin, look := Look(check))
    assert look.calls == 12


def test_the_old_tower_s_output_moves_less_the_stronger_it_is(dataset):
    video = dataset.columns["video"].values[80:]
    before = trained(dataset, stages=1, steps=40).space.encode("video", video)
    drifts = []
    for weight in (0.0, 3.0, 100.0):
        learner = trained(dataset, Prototypes(weight=weight), steps=40)
        drifts.append(float((learner.space.encode("video", video) - before).square().sum(1).mean()))
    assert drifts[0] > drifts[1] > drifts[2]


def test_parameters_out_of_range_are_refused():
    for wrong in ({"weight": -1.0}, {"epsilon": 0.0}, {"items": 0}):
        with pytest.raises(ValueError, match=rf"prototypes\.{next(iter(wrong))} = "):
            Prototypes(**wrong)


def test_masses_are_the_shares_of_items_nearest_to_each_centroid(dataset):
    plugin = Prototypes(items=128)
    learner, streams = begun(dataset, plugin)
    learner.learn(streams, 0)
    rows = streams.train[0].items.shares[0].rows.numpy()
    joint = sum(
        learner.space.encode(name, dataset.columns[name].values[rows])
        for name in ("video", "audio")
    )
    counts = (joint @ learner.space.centroids.T).argmax(1).bincount(minlength=4) + 1.0
    torch.testing.assert_close(plugin.state()["masses"], counts / counts.sum())
    torch.testing.assert_close(plugin.state()["centroids"], learner.space.centroids)


def test_a_space_without_centroids_is_refused(dataset):
    chosen = scenario()
    chosen = chosen.model_copy(update={"space": SpaceSettings(dim=16, clusters=0)})
    streams = benchmark(chosen, plan(chosen, dataset.card), dataset, seed=0)
    learner = Learner(space=JointSpace(chosen.space), seed=0, plugins=[Prototypes()])
    with pytest.raises(ValueError, match=r"\[space\] clusters"):
        learner.learn(streams, 0)
