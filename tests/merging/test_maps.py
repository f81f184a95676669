"""Maps between spaces and layers: hand values, and facts that hold for any numbers."""

import pytest
import torch

from continual_mm.merging.maps import (
    incoming_map,
    orthogonal_map,
    outgoing_map,
    residual,
    standardised_units,
    unit_plan,
)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_quarter_turn_is_found():
    source = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    target = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    found = orthogonal_map(source, target)
    torch.testing.assert_close(found, torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    assert residual(source, target) == pytest.approx(2**0.5)
    assert residual(source @ found, target) == pytest.approx(0, abs=1e-6)


def test_any_rotation_or_reflection_is_found_exactly():
    source = drawn(40, 8)
    for seed in (1, 2, 3):
        rotation, _ = torch.linalg.qr(drawn(8, 8, seed=seed))
        for turned in (rotation, rotation @ torch.diag(torch.tensor([-1.0] + [1.0] * 7).double())):
            torch.testing.assert_close(orthogonal_map(source, source @ turned), turned)


def test_no_other_rotation_brings_rows_nearer():
    source, target = drawn(30, 5), drawn(30, 5, seed=1)
    found = orthogonal_map(source, target)
    torch.testing.assert_close(found @ found.T, torch.eye(5).double())
    least = (source @ found - target).norm()
    for seed in range(20):
        other, _ = torch.linalg.qr(found + 0.1 * drawn(5, 5, seed=seed))
        assert (source @ other - target).norm() >= least


def test_with_fewer_rows_than_dimensions_it_is_orthogonal_all_the_same():
    source, target = drawn(3, 8), drawn(3, 8, seed=1)
    found = orthogonal_map(source, target)
    torch.testing.assert_close(found @ found.T, torch.eye(8).double())


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (torch.ones(3, 2), torch.ones(3, 4)),
        (torch.ones(0, 2), torch.ones(0, 2)),
        (torch.ones(3), torch.ones(3)),
        (torch.tensor([[float("nan"), 1.0]]), torch.ones(1, 2)),
    ],
)
def test_rows_that_do_not_belong_together_are_refused(source, target):
    with pytest.raises(ValueError, match=r"rows are needed|NaN"):
        orthogonal_map(source, target)


def test_a_permutation_of_units_is_found():
    a, order = drawn(6, 20), torch.tensor([3, 0, 5, 1, 4, 2])
    for cost in ("euclidean", "cosine"):
        plan = unit_plan(a, a[order], cost=cost)
        expected = torch.zeros(6, 6, dtype=torch.float64)
        expected[order, torch.arange(6)] = 1 / 6
        torch.testing.assert_close(plan, expected)


def test_the_plan_has_the_marginals_that_are_asked_for():
    a, b = drawn(5, 7), drawn(3, 7, seed=1)
    plan = unit_plan(a, b)
    torch.testing.assert_close(plan.sum(1), torch.full((5,), 1 / 5).double())
    torch.testing.assert_close(plan.sum(0), torch.full((3,), 1 / 3).double())
    masses = torch.tensor([1.0, 2.0, 5.0])
    plan = unit_plan(a, b, masses_b=masses)
    torch.testing.assert_close(plan.sum(0), masses.double() / 8)
    assert bool((plan >= 0).all())


def test_the_plan_costs_no_more_than_any_permutation():
    a, b = drawn(5, 4), drawn(5, 4, seed=1)
    costs = torch.cdist(a, b)
    least = float((unit_plan(a, b) * costs).sum()) * 5
    from itertools import permutations

    every = [
        sum(float(costs[i, j]) for i, j in enumerate(order)) for order in permutations(range(5))
    ]
    assert least == pytest.approx(min(every))


def test_the_distance_is_not_squared():
    """Past an obtuse corner two sides are longer than the third, their squares smaller."""
    a = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    b = torch.tensor([[3.0, 0.0], [4.0, 1.0]])
    straight, crossed = 3 + 2**0.5, 17**0.5 + 0
    assert crossed < straight
    assert 17 + 0 > 9 + 2
    torch.testing.assert_close(unit_plan(a, b), torch.eye(2).double().flip(0) / 2)


def test_two_units_for_each_of_another_layer_are_exact_in_a_next_layer():
    """Twelve units that are six doubled ones: what reads them receives the same sum."""
    small = drawn(6, 10)
    doubled = small.repeat_interleave(2, dim=0)
    plan = unit_plan(doubled, small)
    outgoing, incoming = outgoing_map(plan), incoming_map(plan)
    torch.testing.assert_close(outgoing.sum(1), torch.ones(6).double())
    torch.testing.assert_close(incoming.sum(1), torch.ones(12).double())
    reads = drawn(4, 12, seed=1)
    inputs = drawn(10, 5, seed=2)
    before = reads @ (doubled @ inputs)
    after = (reads @ incoming) @ ((outgoing @ doubled) @ inputs)
    torch.testing.assert_close(after, before)


def test_the_maps_of_a_plan_worked_out_by_hand():
    plan = torch.tensor([[0.25, 0.25], [0.0, 0.5]])
    torch.testing.assert_close(outgoing_map(plan), torch.tensor([[1.0, 0.0], [1 / 3, 2 / 3]]))
    torch.testing.assert_close(incoming_map(plan), torch.tensor([[0.5, 0.5], [0.0, 1.0]]))


def test_a_unit_that_never_changes_has_zeros_and_no_direction():
    values = torch.tensor([[1.0, 7.0], [3.0, 7.0]])
    torch.testing.assert_close(
        standardised_units(values), torch.tensor([[-1.0, 1.0], [0.0, 0.0]]).double()
    )
    plan = unit_plan(standardised_units(values), drawn(2, 2), cost="cosine")
    assert bool(plan.isfinite().all())


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"a": torch.ones(2, 3), "b": torch.ones(2, 4)}, "equally many features"),
        ({"a": torch.ones(0, 3), "b": torch.ones(2, 3)}, "equally many features"),
        ({"a": torch.full((2, 3), float("inf")), "b": torch.ones(2, 3)}, "infinite"),
        ({"a": torch.ones(2, 3), "b": torch.ones(2, 3), "masses_a": torch.ones(3)}, "2 masses"),
        (
            {"a": torch.ones(2, 3), "b": torch.ones(2, 3), "masses_b": torch.tensor([1.0, -1.0])},
            "positive",
        ),
    ],
)
def test_units_that_cannot_be_matched_are_refused(given, problem):
    with pytest.raises(ValueError, match=problem):
        unit_plan(**given)
