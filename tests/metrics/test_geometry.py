"""Movement against known rotations and against SciPy's Procrustes solution."""

import math
import time

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes

from continual_mm.metrics.geometry import aligned, modality_gap, movement


def unit(rows, dim, seed=0):
    values = torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(values.double(), dim=1)


def turn(dim, angle):
    """Turns every vector of an even dimension by the angle."""
    cos, sin = math.cos(angle), math.sin(angle)
    plane = torch.tensor([[cos, sin], [-sin, cos]], dtype=torch.float64)
    return torch.block_diag(*[plane] * (dim // 2))


def orthogonal(dim, seed=0):
    square = torch.randn(dim, dim, generator=torch.Generator().manual_seed(seed)).double()
    return torch.linalg.qr(square).Q


@pytest.mark.parametrize("angle", [1e-6, 0.3, 1.5, 3.0])
@pytest.mark.parametrize("rows", [3, 40])
def test_a_turned_copy_has_its_angle_and_no_residual(angle, rows):
    before = {"video": unit(rows, 8), "audio": unit(rows, 8, seed=1)}
    after = {name: rows @ turn(8, angle) for name, rows in before.items()}
    found = movement(before, after)
    assert found.rotation == pytest.approx(angle, rel=1e-6)
    for name in before:
        assert found.residual[name] == pytest.approx(0, abs=1e-12)
        assert found.moved[name] == pytest.approx(2 * math.sin(angle / 2), rel=1e-9)


@pytest.mark.parametrize("dim", [5, 60])
def test_any_orthogonal_map_even_a_reflection_is_found(dim):
    before, mirror = unit(20, dim), orthogonal(dim)
    mirror[:, 0] *= -torch.linalg.det(mirror).sign()
    assert torch.linalg.det(mirror) < 0
    found = movement({"a": before}, {"a": before @ mirror})
    assert found.residual["a"] == pytest.approx(0, abs=1e-10)
    assert found.rotation > 0.5


def test_what_stays_put_neither_turns_nor_moves():
    few = unit(6, 3).float() @ torch.randn(3, 20)
    for rows in (unit(30, 8).float(), unit(5, 40).float(), few):
        found = movement({"a": rows}, {"a": rows.clone()})
        assert found.moved["a"] == 0
        assert found.rotation == pytest.approx(0, abs=1e-6)
        assert found.residual["a"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("rows", "dim"), [(50, 6), (12, 12), (7, 30)])
def test_the_map_is_scipys(rows, dim):
    before, after = unit(rows, dim), unit(rows, dim, seed=1)
    matrix, _ = orthogonal_procrustes(before.numpy(), after.numpy())
    np.testing.assert_allclose(aligned(before, after), before.numpy() @ matrix, atol=1e-9)
    found = movement({"a": before[:3], "b": before[3:]}, {"b": after[3:], "a": after[:3]})
    distances = np.linalg.norm(before.numpy() @ matrix - after.numpy(), axis=1)
    assert found.residual["a"] == pytest.approx(np.sqrt(np.mean(distances[:3] ** 2)))
    assert found.residual["b"] == pytest.approx(np.sqrt(np.mean(distances[3:] ** 2)))
    cosines = (before.numpy() * (before.numpy() @ matrix)).sum(axis=1)
    assert found.rotation == pytest.approx(np.sqrt(np.mean(np.arccos(cosines) ** 2)))


def test_a_shift_is_no_rotation():
    corners = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]]).double()
    shifted = corners + torch.tensor([0.0, 0.0, 0.25])
    found = movement({"a": corners}, {"a": shifted})
    assert found.rotation == pytest.approx(0, abs=1e-12)
    assert found.moved["a"] == found.residual["a"] == pytest.approx(0.25)


def test_thousands_of_dimensions_are_as_cheap_as_the_items_are_few():
    before, after = unit(60, 6144), unit(60, 6144, seed=1)
    movement({"a": before}, {"a": after})
    began = time.perf_counter()
    movement({"a": before}, {"a": after})
    # Decomposing a 6144 x 6144 matrix takes minutes, and the product alone seconds.
    assert time.perf_counter() - began < 1


def test_a_number_that_is_not_finite_makes_all_unknown_and_stops_nothing():
    for bad in (math.nan, math.inf):
        after = unit(4, 3)
        after[1, 2] = bad
        found = movement({"a": unit(4, 3), "b": unit(4, 3)}, {"a": after, "b": unit(4, 3)})
        values = [found.rotation, *found.moved.values(), *found.residual.values()]
        assert len(values) == 5
        assert all(math.isnan(value) for value in values)


def test_what_cannot_be_compared_is_refused():
    rows = unit(4, 3)
    for after in ({"b": rows}, {"a": rows[:2]}, {"a": rows, "b": rows}):
        with pytest.raises(ValueError, match="the same items"):
            movement({"a": rows}, after)
    with pytest.raises(ValueError, match="at least one modality"):
        movement({}, {})


def test_the_gap_is_the_distance_of_the_means():
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    second = torch.tensor([[-1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, 1.0]])
    assert modality_gap(first, second) == pytest.approx(1.0)
    assert modality_gap(first, -first) == pytest.approx(math.sqrt(2))
    assert modality_gap(first[:1], -first[:1]) == 2
    assert modality_gap(first, first.flip(0)) == 0
    assert modality_gap(first, second) == modality_gap(second, first)
