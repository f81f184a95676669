"""MERU's objective against its parts written out, and where it is known."""

import math

import pytest
import torch

from continual_mm.losses.entailment import entailment_loss, hyperbolic_contrast, meru_loss
from continual_mm.losses.lorentz import exponential_map, lorentz_distance


def points(seed, count=8, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    v = scale * torch.randn(count, 4, generator=generator, dtype=torch.float64)
    return exponential_map(v, curvature=1.0)


def test_points_that_all_coincide_are_chance_and_entail_each_other():
    same = torch.zeros(16, 4)
    loss = meru_loss(same, same, scale=14.0, curvature=1.0)
    assert loss.item() == pytest.approx(math.log(16))


def test_partners_that_coincide_far_from_all_others_cost_nothing():
    x = points(0, scale=3.0)
    assert hyperbolic_contrast(x, x, scale=100.0, curvature=1.0).item() < 1e-8


def test_it_is_the_mean_of_both_softmax_losses_of_distances():
    x, y = points(0), points(1)
    distances = torch.stack([lorentz_distance(x[i], y, curvature=1.0) for i in range(8)])
    chances = [(-3 * distances).softmax(axis).diagonal().log().mean() for axis in (0, 1)]
    found = hyperbolic_contrast(x, y, scale=3.0, curvature=1.0)
    assert found.item() == pytest.approx(-sum(chances).item() / 2)


def test_a_partner_behind_the_general_item_costs_nothing_and_one_before_it_nearly_pi():
    x = points(0, scale=2.0)
    assert entailment_loss(x, 1.5 * x, curvature=1.0).item() == 0
    aperture = torch.asin(0.2 / x.norm(dim=1))
    found = entailment_loss(x, 0.5 * x, curvature=1.0).item()
    assert found == pytest.approx((math.pi - aperture).mean().item())


def test_descending_brings_specific_items_behind_the_general_ones():
    general = points(0)
    v = torch.randn(8, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    v.requires_grad_()
    before = entailment_loss(general, exponential_map(v, curvature=1.0), curvature=1.0).item()
    optimiser = torch.optim.Adam([v], lr=0.05)
    for _ in range(300):
        optimiser.zero_grad()
        entailment_loss(general, exponential_map(v, curvature=1.0), curvature=1.0).backward()
        optimiser.step()
    after = entailment_loss(general, exponential_map(v, curvature=1.0), curvature=1.0).item()
    assert after < 0.05 * before


def test_halves_under_autocast_are_computed_in_float32():
    x, y = (points(seed).float() for seed in (0, 1))
    right = meru_loss(x, y, scale=14.0, curvature=1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = meru_loss(x, y, scale=14.0, curvature=1.0)
    assert found.dtype == torch.float32
    assert found.item() == right.item()
