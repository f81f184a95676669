"""Interpolate: a stage's end lies between the weights before and after it."""

import pytest
import torch
from safetensors.torch import load, save

from continual_mm.plugins.freeze import Freeze
from continual_mm.plugins.interpolate import Interpolate
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.recollection import Recollection
from continual_mm.plugins.transport import Transport


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


def test_all_the_way_back_is_bit_for_bit_where_it_was(trained, values, contained):
    before = values(trained(stages=1))
    assert contained(before, values(trained(Interpolate(towards_old=1.0))))


def test_no_way_back_changes_nothing_and_keeps_nothing(trained, values, same):
    plugin = Interpolate(towards_old=0.0)
    naive = values(trained(stages=3))
    assert same(naive, values(trained(plugin, stages=3)))
    assert plugin.state() == {}
    assert not same(naive, values(trained(Interpolate(), stages=3)))


def test_it_leaves_the_first_stage_alone(trained, values, same):
    plugin = Interpolate(towards_old=1.0)
    naive = values(trained(stages=1))
    assert same(naive, values(trained(plugin, stages=1)))
    assert plugin.state() == {}


def test_each_stage_goes_back_to_the_end_of_the_one_before_it(trained, values, contained):
    second = values(trained(Interpolate(towards_old=1.0), stages=2))
    third = values(trained(Interpolate(towards_old=1.0), stages=3))
    assert any(".text." in name for name in second)
    assert contained(second, third)


@pytest.mark.parametrize("first", [True, False])
def test_a_teacher_is_the_interpolated_space_whatever_the_order_of_the_plugins(first, trained):
    transport, interpolate = Transport(rows=16), Interpolate(towards_old=0.5)
    plugins = (interpolate, transport) if first else (transport, interpolate)
    learner = trained(*plugins, items=24)
    remembered = next(p for p in learner.plugins if isinstance(p, Recollection)).batch
    teacher = transport.state()
    for name in ("video", "audio", "text"):
        expected = learner.space.encode(name, remembered.features[name])
        torch.testing.assert_close(teacher[f"teacher/{name}"], expected)


def test_what_is_frozen_stays_bit_for_bit(trained, values, same):
    frozen = values(trained(Freeze()))
    assert same(frozen, values(trained(Freeze(), Interpolate())))


def test_a_stage_that_goes_on_with_a_saved_state_goes_back_to_the_same_weights(
    trained, values, same
):
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
    whole = values(trained(Interpolate(towards_old=0.5)))
    assert same(whole, values(trained(plugin, Successor(plugin))))


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_way_outside_zero_to_one_is_refused(share):
    with pytest.raises(ValueError, match=r"towards_old = .*: give a number from 0 to 1"):
        Interpolate(towards_old=share)
