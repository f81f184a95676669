"""Interpolate, Realign: weights between a stage's ends, and steps that fit them together again."""

import json

import pytest
import torch

from continual_mm.definitions.arrivals import plan
from continual_mm.definitions.scenario import MemorySettings, Strategy
from continual_mm.learning.objective import Part, contrast
from continual_mm.learning.stream import benchmark
from continual_mm.plugins.interpolate import Interpolate
from continual_mm.plugins.nullspace import Nullspace
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.realign import Realign
from continual_mm.plugins.recollection import Recollection
from continual_mm.plugins.transport import Transport
from continual_mm.runs.run import run


def test_old_weights_end_between_where_they_were_and_where_they_went(trained, values, contained):
    before = values(trained(stages=1))
    naive = values(trained())
    after = values(trained(Interpolate(towards_old=0.25)))
    for name in before.keys() - {"centroids"}:
        expected = 0.25 * before[name] + 0.75 * naive[name]
        torch.testing.assert_close(after[name], expected, rtol=0, atol=1e-6)
    new = naive.keys() - before.keys()
    assert new
    assert all(torch.equal(after[name], naive[name]) for name in new)
    assert not contained(before, naive)


def test_centroids_stay_on_the_sphere_in_the_plane_of_both_ends(trained, values):
    ends = [values(trained(stages=stages))["centroids"] for stages in (1, 2)]
    found = values(trained(Interpolate(towards_old=0.5)))["centroids"]
    assert not torch.allclose(*ends, atol=1e-3)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))
    middle = torch.nn.functional.normalize(ends[0] + ends[1], dim=1)
    torch.testing.assert_close(found, middle)


def test_all_the_way_back_is_bit_for_bit_the_end_of_the_stage_before(trained, values, contained):
    first, second, third = (
        values(trained(Interpolate(towards_old=1.0), stages=stages)) for stages in (1, 2, 3)
    )
    assert contained(first, second)
    assert contained(second, third)


def contrasts(learner, scenario, dataset):
    """The contrastive terms of the first two stages' pairs, over all their items at once."""
    streams = benchmark(scenario, plan(scenario, dataset.card), dataset, seed=0)
    learner.space.eval()
    found = {}
    for experience in streams.train[:2]:
        batch = experience.items.block((torch.arange(len(experience.items)),))
        with torch.no_grad():
            embedded = learner.space(batch.features, batch.lengths)
            terms = contrast(learner.space, batch, embedded, experience.pairs, Part(0, len(batch)))
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


def test_it_leaves_stages_without_steps_alone(scenario, trained, values, contained):
    first, second, _ = scenario.stages
    stages = (first, second.model_copy(update={"steps": 0}))
    still = scenario.model_copy(update={"stages": stages})
    naive = values(trained(stages=1, scenario=still))
    assert contained(naive, values(trained(Realign(), scenario=still)))


@pytest.mark.parametrize("make", [lambda: Interpolate(towards_old=0.5), lambda: Realign(steps=5)])
@pytest.mark.parametrize("order", [1, -1])
def test_a_teacher_is_the_merged_space_whatever_the_order_of_the_plugins(order, make, trained):
    transport = Transport(rows=16)
    learner = trained(*[make(), transport][::order])
    remembered = next(p for p in learner.plugins if isinstance(p, Recollection)).batch
    for name in ("video", "audio", "text"):
        expected = learner.space.encode(name, remembered.features[name])
        torch.testing.assert_close(transport.state()[f"teacher/{name}"], expected)


@pytest.mark.parametrize("order", [1, -1])
def test_its_steps_leave_old_outputs_where_the_null_space_keeps_them(order, dataset, begun):
    def outputs(learner):
        return learner.space.encode("video", dataset.columns["video"].values[:80])

    plugins = [Nullspace(keep=1.0, batches=4, rows=20), Realign(steps=20, rate=1.0)]
    learner, streams = begun(*plugins[::order])
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
    assert json.loads(cost.read_text())["steps"] == 12 + 2 * (12 + 7)
