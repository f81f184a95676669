"""Realign: merged weights, then steps on old and new items that fit the towers together again."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.arrivals import plan
from continual_mm.definitions.scenario import (
    MemorySettings,
    Scenario,
    SpaceSettings,
    Stage,
    Strategy,
    Training,
)
from continual_mm.learning.learner import Learner
from continual_mm.learning.objective import Part, contrast
from continual_mm.learning.stream import benchmark
from continual_mm.plugins.freeze import Freeze
from continual_mm.plugins.interpolate import Interpolate
from continual_mm.plugins.nullspace import Nullspace
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.realign import Realign
from continual_mm.plugins.recollection import Recollection
from continual_mm.plugins.transport import Transport
from continual_mm.runs import checkpoint
from continual_mm.runs.run import run
from continual_mm.runs.session import Session, open_session
from continual_mm.runs.specification import Specification, opened


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Three modalities that share but three numbers."""
    rng = np.random.default_rng(1)
    shared = rng.standard_normal((120, 3))
    arrays = {
        name: (shared @ rng.standard_normal((3, size))).astype(np.float32)
        for name, size in (("video", 8), ("audio", 7), ("text", 5))
    }
    return Dataset.from_arrays(arrays, split=np.repeat([0, 1, 2], [80, 20, 20]))


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return Scenario(
        name="realign",
        items="shared",
        space=SpaceSettings(dim=16, clusters=4, feature_dropout=0.2),
        training=Training(steps=12, batch_size=20, learning_rate=1e-2),
        stages=(Stage(add=("video", "audio")), Stage(add=("text",), pairs=("video-text",))),
    )


@pytest.fixture
def begun(begun):
    """With a memory of 24 items."""
    return partial(begun, items=24)


def contrasts(learner: Learner, scenario: Scenario, dataset: Dataset) -> dict[str, float]:
    """The contrastive terms of all pairs ever trained, over all training items at once."""
    streams = benchmark(scenario, plan(scenario, dataset.card), dataset, seed=0)
    learner.space.eval()
    found = {}
    for experience in streams.train:
        batch = experience.items.block((torch.arange(80),))
        with torch.no_grad():
            embedded = learner.space(batch.features, batch.lengths)
            terms = contrast(learner.space, batch, embedded, experience.pairs, Part(0, 80))
        found |= {name: float(value) for name, value in terms.items()}
    learner.space.train()
    return found


def test_at_no_rate_it_is_interpolation_bit_for_bit(trained, values, same):
    merged = values(trained(Interpolate(towards_old=0.4)))
    assert same(merged, values(trained(Realign(towards_old=0.4, rate=0.0))))
    assert not same(merged, values(trained(Realign(towards_old=0.4))))


def test_its_steps_fit_old_and_new_pairs_better_than_merging_alone(scenario, dataset, trained):
    merged = trained(Interpolate(towards_old=0.5))
    realigned = trained(Realign(towards_old=0.5, steps=40, rate=0.3))
    before = contrasts(merged, scenario, dataset)
    after = contrasts(realigned, scenario, dataset)
    assert after.keys() == {"contrast/audio-video", "contrast/text-video"}
    assert all(after[name] < 0.9 * before[name] for name in after)


def test_what_only_remembered_items_have_is_realigned_as_well(trained, values):
    """No item of the second stage has audio, so but for the memory its tower would not move."""
    before = values(trained(stages=1))
    naive = values(trained())
    after = values(trained(Realign(towards_old=1.0, steps=5)))
    audio = [name for name in before if name.startswith("encoders.audio.")]
    assert all(torch.equal(before[name], naive[name]) for name in audio)
    assert not any(torch.equal(before[name], after[name]) for name in audio)
    assert torch.equal(before["centroids"], after["centroids"])


def test_it_leaves_the_first_stage_and_stages_without_steps_alone(
    scenario, trained, values, contained, same
):
    naive = values(trained(stages=1))
    assert same(naive, values(trained(Realign(), stages=1)))
    first, second = scenario.stages
    still = scenario.model_copy(update={"stages": (first, second.model_copy(update={"steps": 0}))})
    assert contained(naive, values(trained(Realign(), scenario=still)))


@pytest.mark.parametrize("first", [True, False])
def test_a_teacher_is_the_realigned_space_whatever_the_order_of_the_plugins(first, trained):
    transport, realign = Transport(rows=16), Realign(steps=5)
    plugins = (realign, transport) if first else (transport, realign)
    learner = trained(*plugins)
    remembered = next(p for p in learner.plugins if isinstance(p, Recollection)).batch
    for name in ("video", "audio", "text"):
        expected = learner.space.encode(name, remembered.features[name])
        torch.testing.assert_close(transport.state()[f"teacher/{name}"], expected)


def test_what_is_frozen_stays_bit_for_bit_while_the_new_tower_learns(
    trained, values, contained, same
):
    before = values(trained(stages=1))
    frozen = values(trained(Freeze()))
    after = values(trained(Freeze(), Realign(steps=5)))
    assert contained(before, after)
    assert not same(frozen, after)


@pytest.mark.parametrize("first", [True, False])
def test_its_steps_leave_old_outputs_where_the_null_space_keeps_them(first, dataset, begun):
    def outputs(learner: Learner) -> Tensor:
        return learner.space.encode("video", dataset.columns["video"].values[:80])

    plugins = [Nullspace(keep=1.0, batches=4, rows=20), Realign(steps=20, rate=1.0)]
    learner, streams = begun(*(plugins if first else plugins[::-1]))
    learner.learn(streams, 0)
    before = outputs(learner)
    learner.learn(streams, 1)
    assert (outputs(learner) - before).norm() < 1e-6 * before.norm()


def test_the_batch_and_the_optimizer_are_left_as_they_were(trained):
    class Listener(Plugin):
        def after_training_iteration(self, strategy, *args, **kwargs):
            self.batch, self.optimizer = strategy.batch, strategy.optimizer
            self.moments = {
                p: slots["exp_avg"].clone() for p, slots in strategy.optimizer.state.items()
            }

        def after_training_epoch(self, strategy, *args, **kwargs):
            assert strategy.batch is self.batch
            assert strategy.optimizer is self.optimizer
            for parameter, moment in self.moments.items():
                assert torch.equal(moment, strategy.optimizer.state[parameter]["exp_avg"])
                assert parameter.grad is None or strategy.stage == 0
            assert not strategy.clusters.fixed

    trained(Realign(steps=3), Listener())


def test_its_steps_are_part_of_what_a_run_costs(tmp_path, scenario, dataset):
    strategy = Strategy(
        name="realign", memory=MemorySettings(items=24), plugins={"realign": {"steps": 7}}
    )
    run(scenario, strategy, dataset, tmp_path, device="cpu")
    (cost,) = tmp_path.rglob("cost.json")
    assert json.loads(cost.read_text())["steps"] == 12 + 12 + 7


def test_a_run_killed_while_it_realigns_goes_on_from_its_checkpoint_to_the_same_bits(
    tmp_path, scenario, dataset, values, same
):
    class Deadly(Plugin):
        """Ends the run in the fourth step of the realignment, if asked to."""

        def __init__(self, steps: int = 1000) -> None:
            super().__init__()
            self.left = steps

        def after_update(self, strategy, *args, **kwargs):
            self.left -= strategy.stage == 1 and strategy.step == strategy.training.steps
            if not self.left:
                raise KeyboardInterrupt

    def session(deadly: Deadly) -> Session:
        plugins = {"realign": Realign(steps=9, rows=8), "deadly": deadly}
        strategy = Strategy(name="plugins", memory=MemorySettings(items=24))
        specification = Specification(opened(scenario, dataset.card), strategy)
        return open_session(specification, dataset, plugins)

    whole = session(Deadly())
    for stage in (0, 1):
        whole.learn(stage)

    killed = session(Deadly(4))
    learner, ended, inside = killed.learner, tmp_path / "ended", tmp_path / "inside"
    killed.learn(0)
    checkpoint.save(ended, learner, killed.keepers, {})

    def save_once() -> None:
        if learner.step == 8:
            checkpoint.save(inside, learner, killed.keepers, {})

    learner.after_step = save_once
    with pytest.raises(KeyboardInterrupt):
        killed.learn(1)

    fresh = session(Deadly())
    checkpoint.add_modalities(ended, fresh.learner)
    checkpoint.restore(ended, fresh.learner, fresh.keepers)
    fresh.learner.pass_over(fresh.benchmark, 1)
    back = lambda: checkpoint.restore(inside, fresh.learner, fresh.keepers)  # noqa: E731
    fresh.learn(1, step=8, restore=back)
    assert same(values(whole.learner), values(fresh.learner))
    assert whole.extra_steps == fresh.extra_steps == 9
    kept = [each.learner.clusters.state() for each in (whole, fresh)]
    assert same(*kept)
