"""Hyperbolic geometry against 60-digit arithmetic, hand values and facts of the space."""

import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from continual_mm.losses.lorentz import (
    exponential_map,
    exterior_angle,
    exterior_angles,
    half_aperture,
    lorentz_distance,
)

HAND_VALUES = [  # x, y, distance, exterior angle, half aperture of x, at c = 1 and K = 0.1
    ((0.5, 0.0), (0.0, 1.0), 1.0317185344, 2.1862760355, 0.4115168461),
    ((2.0, 1.0), (3.0, 1.0), 0.4930633403, 1.0577961346, 0.0895624074),
    ((0.5, 0.0), (1.0, 0.0), 0.4001617620, 0.0, 0.4115168461),
]


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class Exact:
    """The textbook forms, in 60 digits."""

    def __init__(self, c):
        mpmath.mp.dps = 60
        self.c = mpmath.mpf(c)

    def inner(self, x, y):
        return sum(a * b for a, b in zip(x, y, strict=True)) - self.time(x) * self.time(y)

    def time(self, x):
        return mpmath.sqrt(1 / self.c + sum(a * a for a in x))

    def distance(self, x, y):
        return mpmath.acosh(-self.c * self.inner(x, y)) / mpmath.sqrt(self.c)

    def angle(self, x, y):
        product = self.c * self.inner(x, y)
        length = mpmath.sqrt(sum(a * a for a in x))
        lower = length * mpmath.sqrt(product * product - 1)
        return mpmath.acos((self.time(y) + product * self.time(x)) / lower)


def digits(x):
    return [mpmath.mpf(value) for value in x.tolist()]


@pytest.mark.parametrize(("x", "y", "distance", "angle", "aperture"), HAND_VALUES)
def test_values_that_were_worked_out_by_hand(x, y, distance, angle, aperture):
    x, y = (torch.tensor(each, dtype=torch.float64) for each in (x, y))
    assert lorentz_distance(x, y, curvature=1.0).item() == pytest.approx(distance, abs=1e-10)
    assert exterior_angle(x, y, curvature=1.0).item() == pytest.approx(angle, abs=1e-10)
    assert half_aperture(x, curvature=1.0).item() == pytest.approx(aperture, abs=1e-10)


@pytest.mark.parametrize("curvature", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("length", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("apart", [1.0, 1e-3, 1e-8])
def test_distances_keep_their_digits_however_near_points_are(curvature, length, apart):
    v = length * torch.nn.functional.normalize(random(6, 4), dim=1)
    x, y = (
        exponential_map(each, curvature=curvature) for each in (v, v + apart * random(6, 4, seed=1))
    )
    exact = Exact(curvature)
    found = lorentz_distance(x, y, curvature=curvature)
    for one, other, distance in zip(x, y, found, strict=True):
        expected = float(exact.distance(digits(one), digits(other)))
        assert distance.item() == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("curvature", [0.1, 1.0, 10.0])
@pytest.mark.parametrize(("apart", "within"), [(1.0, 1e-12), (0.1, 1e-10), (1e-4, 1e-7)])
def test_angles_of_pairs_and_of_all_pairs_are_right_in_float64(curvature, apart, within):
    v = random(5, 4)
    x, y = (
        exponential_map(each, curvature=curvature) for each in (v, v + apart * random(5, 4, seed=1))
    )
    exact = Exact(curvature)
    paired, every = (
        exterior_angle(x, y, curvature=curvature),
        exterior_angles(x, y, curvature=curvature),
    )
    for row, (one, other) in enumerate(zip(x, y, strict=True)):
        expected = float(exact.angle(digits(one), digits(other)))
        assert paired[row].item() == pytest.approx(expected, abs=within)
        assert every[row, row].item() == pytest.approx(expected, abs=within)
    broadcast = exterior_angle(x[:, None], y[None], curvature=curvature)
    torch.testing.assert_close(every, broadcast, rtol=0, atol=1e-7)


def test_near_points_have_a_distance_in_float32_where_the_usual_form_has_none():
    x = exponential_map(random(50, 8, dtype=torch.float32), curvature=1.0)
    y = x + 1e-4 * random(50, 8, seed=1, dtype=torch.float32)
    found = lorentz_distance(x, y, curvature=1.0)
    right = lorentz_distance(x.double(), y.double(), curvature=1.0)
    torch.testing.assert_close(found.double(), right, rtol=1e-3, atol=0)
    product = (1 + x.square().sum(1)).sqrt() * (1 + y.square().sum(1)).sqrt() - (x * y).sum(1)
    usual = torch.acosh(product)
    assert bool(usual.isnan().any() or ((usual - right).abs() > 0.5 * right).any())


@given(st.floats(0.1, 10), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_distances_are_a_metric(curvature, seed):
    x, y, z = (
        exponential_map(random(20, 3, seed=3 * seed + k), curvature=curvature) for k in range(3)
    )
    there, back = (lorentz_distance(*each, curvature=curvature) for each in ((x, y), (y, x)))
    torch.testing.assert_close(there, back, rtol=1e-12, atol=0)
    by_way_of_z = lorentz_distance(x, z, curvature=curvature) + lorentz_distance(
        z, y, curvature=curvature
    )
    assert bool((there <= by_way_of_z * (1 + 1e-12)).all())
    assert not lorentz_distance(x, x, curvature=curvature).any()


def test_tangent_vectors_lead_as_far_as_they_are_long():
    v, origin = random(30, 5), torch.zeros(5, dtype=torch.float64)
    for curvature, size in ((1.0, 1.0), (0.25, 1e-5), (4.0, 1.0)):
        x = exponential_map(size * v, curvature=curvature)
        found = lorentz_distance(origin, x, curvature=curvature)
        torch.testing.assert_close(found, size * v.norm(dim=1), rtol=1e-12, atol=0)


def test_a_flat_space_is_the_limit_of_small_curvature():
    x, y = random(20, 4), random(20, 4, seed=1)
    found = lorentz_distance(x, y, curvature=1e-10)
    torch.testing.assert_close(found, (x - y).norm(dim=1), rtol=1e-8, atol=0)
    away, towards = x / x.norm(dim=1, keepdim=True), y - x
    angle = torch.acos((away * towards).sum(1) / towards.norm(dim=1))
    torch.testing.assert_close(exterior_angle(x, y, curvature=1e-10), angle, rtol=0, atol=1e-8)


def test_far_vectors_keep_their_direction_and_overflow_nothing():
    v = torch.tensor([300.0, 400.0])
    x = exponential_map(v, curvature=1.0)
    assert bool(x.isfinite().all())
    assert (x / x.norm()).tolist() == pytest.approx([0.6, 0.8])
    assert x.norm().item() == pytest.approx(2**15, rel=1e-5)


def test_turning_the_space_changes_nothing():
    turn = torch.linalg.qr(random(5, 5, seed=7)).Q
    x, y = random(20, 5), random(20, 5, seed=1)
    for function in (lorentz_distance, exterior_angle):
        torch.testing.assert_close(
            function(x @ turn, y @ turn, curvature=0.7), function(x, y, curvature=0.7)
        )


def test_the_origin_entails_everything_and_points_entail_what_lies_behind_them():
    origin, x = torch.zeros(5, dtype=torch.float64), random(20, 5)
    assert exterior_angle(origin, x, curvature=1.0).tolist() == [math.pi / 2] * 20
    assert half_aperture(origin, curvature=1.0).item() == math.pi / 2
    behind, before = (exterior_angle(x, factor * x, curvature=1.0) for factor in (1.5, 0.5))
    assert behind.abs().max().item() == pytest.approx(0, abs=1e-7)
    assert (math.pi - before).abs().max().item() == pytest.approx(0, abs=1e-7)


def test_cones_are_narrower_the_farther_out_and_half_of_the_space_near_the_origin():
    lengths = torch.linspace(0.01, 3, 100, dtype=torch.float64)
    x = torch.stack([lengths, torch.zeros_like(lengths)], dim=1)
    angles = half_aperture(x, curvature=4.0, boundary=0.2)
    saturated = lengths <= 2 * 0.2 / 2
    assert bool((angles[saturated] == math.pi / 2).all())
    assert bool((angles[~saturated].diff() < 0).all())
    sines = 0.2 / lengths[~saturated]
    torch.testing.assert_close(angles[~saturated].sin(), sines)


def test_what_an_item_entails_entails_nothing_that_the_item_does_not():
    x = 0.3 + random(4000, 2).abs()
    y, z = x * 1.4 + 0.05 * random(4000, 2, seed=1), x * 2 + 0.2 * random(4000, 2, seed=2)

    def entails(a, b):
        return exterior_angle(a, b, curvature=1.0) <= half_aperture(a, curvature=1.0)

    chain = entails(x, y) & entails(y, z)
    assert 100 < int(chain.sum()) < 3900
    assert bool(entails(x, z)[chain].all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_the_origin_at_the_apex_and_where_a_cone_is_widest(dtype):
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.2, 0.0], [0.1, 0.0]], dtype=dtype)
    v, c = x.clone().requires_grad_(), torch.tensor(1.0, dtype=dtype, requires_grad=True)
    points = exponential_map(v, curvature=c)
    total = (
        lorentz_distance(points, points.detach(), curvature=c).sum()
        + exterior_angle(points, points.detach(), curvature=c).sum()
        + exterior_angles(points, points.detach(), curvature=c).sum()
        + half_aperture(points, curvature=c).sum()
        + half_aperture(v, curvature=c).sum()
    )
    total.backward()
    assert bool(v.grad.isfinite().all())
    assert bool(c.grad.isfinite())


def test_gradients_are_those_of_differences():
    x, y = random(4, 3).requires_grad_(), random(4, 3, seed=1).requires_grad_()
    c = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    for function in (lorentz_distance, exterior_angle):
        assert torch.autograd.gradcheck(lambda a, b, k, f=function: f(a, b, curvature=k), (x, y, c))
    for function in (exponential_map, half_aperture):
        assert torch.autograd.gradcheck(lambda a, k, f=function: f(a, curvature=k), (x, c))


@pytest.mark.parametrize("curvature", [0.0, -1.0, math.nan, math.inf])
def test_a_space_of_no_negative_curvature_is_refused(curvature):
    with pytest.raises(ValueError, match="above 0"):
        half_aperture(torch.ones(2), curvature=curvature)
