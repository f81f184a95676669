"""Relational: how alike remembered items of one modality are stays as it was."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

from continual_mm.arrivals import plan
from continual_mm.data.batch import Batch
from continual_mm.data.dataset import Dataset
from continual_mm.definitions import Scenario, SpaceSettings, Stage, Training
from continual_mm.learning.learner import Learner
from continual_mm.learning.stream import Benchmark, benchmark
from continual_mm.losses.distillation import relational_distance
from continual_mm.memory import Memory
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.recollection import Recollection
from continual_mm.plugins.relational import Relational
from continual_mm.runs.checkpoint import restore, save, welcome
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
        name="relational",
        space=SpaceSettings(dim=16, clusters=4, feature_dropout=0.0),
        training=Training(steps=10, batch_size=20, learning_rate=1e-2),
        stages=(
            Stage(add=("video", "audio")),
            Stage(add=("text",), pairs=("video-text",)),
            Stage(add=("depth",), pairs=("depth-text",)),
        ),
    )


def begun(scenario: Scenario, dataset: Dataset, *plugins: Plugin) -> tuple[Learner, Benchmark]:
    streams = benchmark(scenario, plan(scenario, dataset.card), dataset, seed=0)
    memory = Memory(24)
    every = [Recollection(memory), *plugins]
    return Learner(space=JointSpace(scenario.space), seed=0, plugins=every, memory=memory), streams


def trained(scenario: Scenario, dataset: Dataset, *plugins: Plugin, stages: int = 2) -> Learner:
    learner, streams = begun(scenario, dataset, *plugins)
    for stage in range(stages):
        learner.learn(streams, stage)
    return learner


def values(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in learner.space.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


class Look(Plugin):
    """Calls a function in each step of a stage, when all terms are there."""

    def __init__(self, stage, function) -> None:
        super().__init__()
        self.stage, self.function, self.calls = stage, function, 0

    def before_backward(self, strategy, *args, **kwargs):
        if strategy.stage == self.stage:
            self.function(strategy)
            self.calls += 1


def watched(scenario, dataset, plugin, stage, function) -> None:
    """A run that is looked at; the function is also told of the space before the stage."""
    finished = []
    look = Look(stage, lambda strategy: function(strategy, finished[-1]))
    learner, streams = begun(scenario, dataset, plugin, look)
    for number in range(stage + 1):
        finished.append(deepcopy(learner.space))
        learner.learn(streams, number)
    assert look.calls == 10


def terms_of(strategy: Learner, start: str) -> dict[str, torch.Tensor]:
    return {name: value for name, value in strategy.terms.items() if name.startswith(start)}


def remembered(strategy: Learner, old: JointSpace) -> Batch:
    part = strategy.remembered
    assert len(part)
    return strategy.batch.select(torch.arange(part.start, part.stop))


def test_the_distance_is_the_mean_squared_change_of_the_cosine_of_two_items():
    dice = np.random.default_rng(3)
    new, old = (dice.standard_normal((5, 3)) for _ in range(2))
    changes = [
        (new[i] @ new[j] - old[i] @ old[j]) ** 2 for i in range(5) for j in range(5) if i != j
    ]
    found = relational_distance(torch.from_numpy(new), torch.from_numpy(old))
    assert float(found) == pytest.approx(np.mean(changes))


def test_a_rotation_of_all_items_is_no_change_and_a_shear_is():
    dice = torch.Generator().manual_seed(3)
    items = torch.randn(6, 4, generator=dice, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(4, 4, generator=dice, dtype=torch.float64))
    assert float(relational_distance(items @ turn, items)) < 1e-20
    turn[0, 1] += 0.1
    assert float(relational_distance(items @ turn, items)) > 1e-4


def test_the_terms_compare_each_old_modality_with_the_old_space(scenario, dataset):
    def check(strategy, old):
        found = terms_of(strategy, "relational/")
        assert found.keys() == {f"relational/{name}" for name in ("audio", "text", "video")}
        batch, part = remembered(strategy, old), strategy.remembered
        for name in ("audio", "text", "video"):
            where = strategy.batch.positions(name, batch.rows[name] + part.start)
            new = strategy.embedded[name].direction[where]
            before = old.encode(name, batch.features[name])
            change = (new @ new.T - before @ before.T).square()
            count = len(new)
            expected = 6.0 / 3 * change.sum() / (count * (count - 1))
            torch.testing.assert_close(found[f"relational/{name}"], expected, rtol=1e-3, atol=1e-6)

    watched(scenario, dataset, Relational(weight=6.0, rows=16), 2, check)


def test_at_the_teacher_there_is_no_change_and_no_pull(scenario, dataset):
    def check(strategy, old):
        if strategy.step:
            return
        found = terms_of(strategy, "relational/")
        assert len(found) == 2
        weights = list(strategy.space.tower("video").parameters())
        loss = torch.stack(list(found.values())).sum()
        pulls = torch.autograd.grad(loss, weights, retain_graph=True)
        assert float(loss) < 1e-9
        assert max(float(pull.abs().max()) for pull in pulls) < 1e-4

    watched(scenario, dataset, Relational(rows=16), 1, check)


def test_similarities_of_old_items_change_less_with_it(scenario, dataset):
    def alike(learner: Learner) -> torch.Tensor:
        video = learner.space.encode("video", dataset.columns["video"].values[:80])
        return video @ video.T

    longer = scenario.training.model_copy(update={"steps": 40})
    scenario = scenario.model_copy(update={"training": longer})
    before = alike(trained(scenario, dataset, stages=1))
    loose = alike(trained(scenario, dataset))
    held = alike(trained(scenario, dataset, Relational(weight=1000.0, rows=24)))
    assert (held - before).square().mean() < 0.5 * (loose - before).square().mean()


def test_without_a_memory_it_is_refused_at_the_start(scenario, dataset):
    streams = benchmark(scenario, plan(scenario, dataset.card), dataset, seed=0)
    learner = Learner(space=JointSpace(scenario.space), seed=0, plugins=[Relational()])
    with pytest.raises(ValueError, match="relational needs past items: give the run a memory"):
        learner.learn(streams, 0)


def test_parameters_out_of_range_are_refused():
    for wrong in ({"weight": -1.0}, {"rows": 1}):
        with pytest.raises(ValueError, match=rf"relational\.{next(iter(wrong))} = "):
            Relational(**wrong)


def test_a_run_that_goes_on_inside_a_stage_ends_with_the_same_bits(scenario, dataset, tmp_path):
    def keepers(learner: Learner) -> dict[str, Plugin]:
        return {type(plugin).__name__: plugin for plugin in learner.plugins[:2]}

    def keep() -> None:
        if (whole.stage, whole.step) == (1, 6):
            save(tmp_path / "inside", whole, keepers(whole), {})

    whole, streams = begun(scenario, dataset, Relational(rows=16))
    whole.after_step = keep
    for stage in range(3):
        whole.learn(streams, stage)
        if not stage:
            save(tmp_path / "first", whole, keepers(whole), {})
    parts, streams = begun(scenario, dataset, Relational(rows=16))
    welcome(tmp_path / "first", parts)
    restore(tmp_path / "first", parts, keepers(parts))
    parts.pass_over(streams, 1)
    there: Path = tmp_path / "inside"
    parts.learn(streams, 1, step=6, jump=lambda: restore(there, parts, keepers(parts)) and None)
    parts.learn(streams, 2)
    assert same(values(whole), values(parts))
    for first, second in zip(keepers(whole).values(), keepers(parts).values(), strict=True):
        assert same(first.state(), second.state())


def test_it_changes_training_and_with_no_weight_it_does_not(scenario, dataset):
    naive = values(trained(scenario, dataset))
    assert not same(naive, values(trained(scenario, dataset, Relational(rows=16))))
    none = Relational(weight=0.0)
    assert same(naive, values(trained(scenario, dataset, none)))
    assert none.state() == {}


def test_it_leaves_the_first_stage_alone(scenario, dataset):
    naive = values(trained(scenario, dataset, stages=1))
    assert same(naive, values(trained(scenario, dataset, Relational(rows=16), stages=1)))
