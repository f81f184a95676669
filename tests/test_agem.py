"""A-GEM: the gradient never points against that of the remembered rows."""

from pathlib import Path

import numpy as np
import pytest
import torch

from continual_mm.arrivals import plan
from continual_mm.data.dataset import Dataset
from continual_mm.definitions import Scenario, SpaceSettings, Stage, Training
from continual_mm.learning.learner import Learner
from continual_mm.learning.stream import Benchmark, benchmark
from continual_mm.memory import Memory
from continual_mm.plugins.agem import AGEM, projected
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.recollection import Recollection
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
        name="agem",
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


def test_what_is_left_of_a_conflict_is_orthogonal_to_the_reference_and_lies_nearest():
    dice = torch.Generator().manual_seed(3)
    reference = torch.randn(50, generator=dice, dtype=torch.float64)
    gradient = torch.randn(50, generator=dice, dtype=torch.float64) - 0.3 * reference
    assert gradient @ reference < 0
    found = projected(gradient, reference)
    assert abs(float(found @ reference)) < 1e-12
    # The nearest point of a plane lies along its normal.
    basis = torch.linalg.svd(reference[None]).Vh[1:]
    torch.testing.assert_close(found, basis.T @ (basis @ gradient))


def test_without_a_conflict_the_gradient_stays_bit_for_bit():
    dice = torch.Generator().manual_seed(3)
    reference = torch.randn(50, generator=dice)
    gradient = torch.randn(50, generator=dice) + reference
    assert gradient @ reference > 0
    assert torch.equal(projected(gradient, reference), gradient)
    assert torch.equal(projected(gradient, torch.zeros(50)), gradient)


class Watch(Plugin):
    """Notes, in each step of a stage, the gradient without A-GEM, the reference's, and the last."""

    def __init__(self, stage: int) -> None:
        super().__init__()
        self.stage = stage
        self.steps: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def before_backward(self, strategy, *args, **kwargs):
        if strategy.stage == self.stage:
            terms = strategy.objective(strategy.remembered)
            losses = strategy.loss.sum(), torch.stack(list(terms.values())).sum()
            self.seen = [self.gradient(strategy, loss) for loss in losses]

    def gradient(self, strategy, loss):
        weights = [p for p in strategy.space.parameters() if p.requires_grad]
        found = torch.autograd.grad(loss, weights, retain_graph=True, materialize_grads=True)
        return torch.cat([each.flatten() for each in found]).double()

    def before_update(self, strategy, *args, **kwargs):
        if strategy.stage == self.stage:
            weights = [p for p in strategy.space.parameters() if p.requires_grad]
            found = [torch.zeros_like(p) if p.grad is None else p.grad for p in weights]
            scale = strategy.scaler.get_scale()
            last = torch.cat([each.flatten() for each in found]).double() / scale
            self.steps.append((*self.seen, last))


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_in_training_conflicts_are_projected_away_and_nothing_else_is(precision, scenario, dataset):
    training = scenario.training.model_copy(update={"steps": 20, "precision": precision})
    scenario = scenario.model_copy(update={"training": training})
    watch = Watch(1)
    trained(scenario, dataset, AGEM(rows=16), watch)
    conflicts = 0
    for gradient, reference, last in watch.steps:
        if not last.isfinite().all():
            assert precision == "float16"  # a step that the scaler skips
            continue
        dot = float(gradient @ reference)
        expected = gradient - min(dot, 0.0) / (reference @ reference) * reference
        loose = 1e-3 if precision == "float32" else 0.05
        assert (last - expected).norm() <= loose * expected.norm()
        if dot < 0:
            conflicts += 1
            cosine = float(last @ reference / last.norm() / reference.norm())
            assert abs(cosine) < loose
    assert conflicts > 0
    assert len(watch.steps) == 20


def test_a_tower_that_only_the_past_trains_takes_what_the_projection_gives_it(scenario, dataset):
    seen = []

    class Audio(Plugin):
        def before_update(self, strategy, *args, **kwargs):
            weights = strategy.space.tower("audio").parameters()
            seen.append((strategy.stage, [weight.grad for weight in weights]))

    trained(scenario, dataset, AGEM(rows=16), Audio())
    trained(scenario, dataset, Audio())
    moved = [sum(float(each.norm()) for each in found) for _, found in seen[10:20]]
    assert any(moved)
    assert all(each is None for _, found in seen[30:] for each in found)


def test_without_a_memory_it_is_refused_at_the_start(scenario, dataset):
    streams = benchmark(scenario, plan(scenario, dataset.card), dataset, seed=0)
    learner = Learner(space=JointSpace(scenario.space), seed=0, plugins=[AGEM()])
    with pytest.raises(ValueError, match="agem needs past items: give the run a memory"):
        learner.learn(streams, 0)


def test_one_row_is_refused():
    with pytest.raises(ValueError, match=r"agem\.rows = 1"):
        AGEM(rows=1)


def test_a_run_that_goes_on_inside_a_stage_ends_with_the_same_bits(scenario, dataset, tmp_path):
    def keepers(learner: Learner) -> dict[str, Plugin]:
        return {type(plugin).__name__: plugin for plugin in learner.plugins[:2]}

    def keep() -> None:
        if (whole.stage, whole.step) == (1, 6):
            save(tmp_path / "inside", whole, keepers(whole), {})

    whole, streams = begun(scenario, dataset, AGEM(rows=16))
    whole.after_step = keep
    for stage in range(3):
        whole.learn(streams, stage)
        if not stage:
            save(tmp_path / "first", whole, keepers(whole), {})
    parts, streams = begun(scenario, dataset, AGEM(rows=16))
    welcome(tmp_path / "first", parts)
    restore(tmp_path / "first", parts, keepers(parts))
    parts.pass_over(streams, 1)
    there: Path = tmp_path / "inside"
    parts.learn(streams, 1, step=6, jump=lambda: restore(there, parts, keepers(parts)) and None)
    parts.learn(streams, 2)
    assert same(values(whole), values(parts))
    for first, second in zip(keepers(whole).values(), keepers(parts).values(), strict=True):
        assert same(first.state(), second.state())


def test_it_changes_training(scenario, dataset):
    naive = values(trained(scenario, dataset))
    assert not same(naive, values(trained(scenario, dataset, AGEM(rows=16))))


def test_it_leaves_the_first_stage_alone(scenario, dataset):
    naive = values(trained(scenario, dataset, stages=1))
    assert same(naive, values(trained(scenario, dataset, AGEM(rows=16), stages=1)))
