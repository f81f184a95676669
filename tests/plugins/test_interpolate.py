"""Interpolate: a stage's end lies between the weights before and after it."""

import pytest
import torch

from continual_mm.plugins.interpolate import Interpolate
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
