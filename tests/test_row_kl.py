"""Row-KL: whom remembered items choose in the other modality stays as it was."""

import math
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import kl_div

from continual_mm.arrivals import plan
from continual_mm.data.batch import Batch
from continual_mm.data.dataset import Dataset
from continual_mm.definitions import Scenario, SpaceSettings, Stage, Training
from continual_mm.learning.learner import Learner
from continual_mm.learning.stream import Benchmark, benchmark
from continual_mm.losses.distillation import row_divergence
from continual_mm.memory import Memory
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.recollection import Recollection
from continual_mm.plugins.row_kl import RowKL
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
        name="row_kl",
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


def divergence(new: torch.Tensor, old: torch.Tensor, temperature: float) -> torch.Tensor:
    """By torch's own: mean over rows, one direction."""
    old, new = (each / temperature for each in (old, new))
    return kl_div(new.log_softmax(1), old.log_softmax(1), reduction="batchmean", log_target=True)


def test_the_divergence_is_torchs_in_both_directions():
    dice = torch.Generator().manual_seed(3)
    new, old = (torch.rand(9, 9, generator=dice) for _ in range(2))
    found = row_divergence(new, old, temperature=0.2, right_only=False)
    expected = divergence(new, old, 0.2) + divergence(new.T, old.T, 0.2)
    torch.testing.assert_close(found, expected)


def test_queries_that_the_teacher_got_wrong_count_as_if_the_student_agreed():
    dice = torch.Generator().manual_seed(3)
    new, old = (torch.rand(9, 9, generator=dice) for _ in range(2))
    old += 0.4 * torch.eye(9)
    expected = torch.tensor(0.0)
    for here, there in ((new, old), (new.T, old.T)):
        wrong = there.argmax(1) != torch.arange(9)
        assert 0 < int(wrong.sum()) < 9
        expected += divergence(here, torch.where(wrong[:, None], here, there), 0.2)
    torch.testing.assert_close(row_divergence(new, old, temperature=0.2), expected)


def test_two_candidates_have_the_divergence_of_two_coins():
    old = torch.tensor([[math.log(3.0), 0.0], [0.0, math.log(3.0)]])  # 3/4 against 1/4
    new = torch.zeros(2, 2)  # 1/2 against 1/2
    coin = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert float(row_divergence(new, old, temperature=1.0)) == pytest.approx(2 * coin)


def cosines(strategy: Learner, old: JointSpace, first: str, second: str):
    """(present, old) cosines of the remembered rows that have both modalities."""
    batch, part = remembered(strategy, old), strategy.remembered
    both = (batch.present(first) & batch.present(second)).nonzero().squeeze(1)
    new, before = {}, {}
    for name in (first, second):
        where = strategy.batch.positions(name, both + part.start)
        new[name] = strategy.embedded[name].direction[where]
        before[name] = old.encode(name, batch.features[name][batch.positions(name, both)])
    return tuple(each[first] @ each[second].T for each in (new, before))


@pytest.mark.parametrize("right_only", [0, 1])
def test_the_terms_are_the_divergences_of_old_pairs_from_the_old_space(
    right_only, scenario, dataset
):
    def check(strategy, old):
        pairs = {"audio-video": ("audio", "video"), "text-video": ("text", "video")}
        found = terms_of(strategy, "row_kl/")
        assert found.keys() == {f"row_kl/{name}" for name in pairs}
        for name, (first, second) in pairs.items():
            new, before = cosines(strategy, old, first, second)
            expected = row_divergence(new, before, temperature=0.5, right_only=bool(right_only))
            torch.testing.assert_close(
                found[f"row_kl/{name}"], 3.0 / 2 * expected, rtol=1e-3, atol=1e-5
            )

    plugin = RowKL(weight=3.0, temperature=0.5, right_only=right_only, rows=16)
    watched(scenario, dataset, plugin, 2, check)


def test_at_the_teacher_there_is_no_divergence_and_no_pull(scenario, dataset):
    def check(strategy, old):
        if strategy.step:
            return
        (term,) = terms_of(strategy, "row_kl/").values()
        weights = list(strategy.space.tower("video").parameters())
        pulls = torch.autograd.grad(term, weights, retain_graph=True)
        assert abs(float(term)) < 1e-6
        assert max(float(pull.abs().max()) for pull in pulls) < 1e-4

    watched(scenario, dataset, RowKL(rows=16), 1, check)


def test_choices_of_old_items_change_less_with_it(scenario, dataset):
    def choices(learner: Learner) -> torch.Tensor:
        video, audio = (
            learner.space.encode(name, dataset.columns[name].values[:80])
            for name in ("video", "audio")
        )
        return video @ audio.T

    longer = scenario.training.model_copy(update={"steps": 40})
    scenario = scenario.model_copy(update={"training": longer})
    before = choices(trained(scenario, dataset, stages=1))
    loose = choices(trained(scenario, dataset))
    held = choices(trained(scenario, dataset, RowKL(weight=10.0, right_only=0, rows=24)))
    assert divergence(held, before, 0.07) < 0.5 * divergence(loose, before, 0.07)


def test_without_a_memory_it_is_refused_at_the_start(scenario, dataset):
    streams = benchmark(scenario, plan(scenario, dataset.card), dataset, seed=0)
    learner = Learner(space=JointSpace(scenario.space), seed=0, plugins=[RowKL()])
    with pytest.raises(ValueError, match="row_kl needs past items: give the run a memory"):
        learner.learn(streams, 0)


def test_parameters_out_of_range_are_refused():
    for wrong in ({"weight": -1.0}, {"temperature": 0.0}, {"right_only": 2}, {"rows": 1}):
        with pytest.raises(ValueError, match=rf"row_kl\.{next(iter(wrong))} = "):
            RowKL(**wrong)


def test_a_run_that_goes_on_inside_a_stage_ends_with_the_same_bits(scenario, dataset, tmp_path):
    def keepers(learner: Learner) -> dict[str, Plugin]:
        return {type(plugin).__name__: plugin for plugin in learner.plugins[:2]}

    def keep() -> None:
        if (whole.stage, whole.step) == (1, 6):
            save(tmp_path / "inside", whole, keepers(whole), {})

    whole, streams = begun(scenario, dataset, RowKL(rows=16))
    whole.after_step = keep
    for stage in range(3):
        whole.learn(streams, stage)
        if not stage:
            save(tmp_path / "first", whole, keepers(whole), {})
    parts, streams = begun(scenario, dataset, RowKL(rows=16))
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
    assert not same(naive, values(trained(scenario, dataset, RowKL(rows=16))))
    none = RowKL(weight=0.0)
    assert same(naive, values(trained(scenario, dataset, none)))
    assert none.state() == {}


def test_it_leaves_the_first_stage_alone(scenario, dataset):
    naive = values(trained(scenario, dataset, stages=1))
    assert same(naive, values(trained(scenario, dataset, RowKL(rows=16), stages=1)))
