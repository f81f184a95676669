"""Sinkhorn by matrix products, against POT in the log domain."""

import pytest
import torch
from ot.batch import solve_batch

from continual_mm.losses.transport import log_scalings, log_transport_plan


def cost(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("iterations", [1, 7, 1000])
def test_it_makes_the_iterations_that_pot_makes(iterations: int) -> None:
    costs = cost(2, 5, 7)
    masses = torch.full((2, 7), 1 / 7, dtype=torch.float64)
    found = log_scalings(-costs / 0.1, masses, tolerance=1e-9, iterations=iterations)
    theirs = solve_batch(
        costs, 0.1, max_iter=iterations, tol=1e-9, method="log_sinkhorn", grad="detach"
    )
    for own, other in zip(found, theirs.potentials, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-9)


def test_given_masses_are_the_sums_of_the_columns() -> None:
    masses = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    rows, columns = log_scalings(-cost(1, 4, 3), masses, tolerance=1e-12, iterations=1000)
    plan = (rows[:, :, None] + columns[:, None, :] - cost(1, 4, 3)).exp()
    torch.testing.assert_close(plan.sum(1), masses)
    torch.testing.assert_close(plan.sum(2), torch.full_like(plan.sum(2), 0.25))


@pytest.mark.parametrize("entry", [-800.0, 800.0, float("nan"), float("inf")])
def test_a_kernel_that_floats_cannot_hold_is_left_to_others(entry: float) -> None:
    kernel = torch.zeros(1, 3, 3)
    kernel[0, 1] = entry
    masses = torch.full((1, 3), 1 / 3)
    assert log_scalings(kernel, masses, tolerance=1e-6, iterations=10) is None


def test_a_plan_is_the_same_from_a_guess_that_is_too_far_off_for_it() -> None:
    costs = cost(6, 6)
    plan, guess = log_transport_plan(costs, epsilon=0.02)
    far = (guess.rows + 10 * cost(6, seed=1), guess.columns)
    again, _ = log_transport_plan(costs, epsilon=0.02, potentials=far)
    torch.testing.assert_close(again, plan, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("epsilon", [0.005, 0.01, 0.02, 0.05])
def test_costs_that_lie_far_apart_have_the_plan_of_the_log_domain(epsilon: float) -> None:
    costs = torch.tensor([[0.0, 2.0, 2.0], [0.0, 2.0, 2.0], [0.0, 0.0, 0.0]])
    plan, _ = log_transport_plan(costs, epsilon=epsilon, iterations=100_000)
    # One of two equal rows cannot have the first column; the third row has what is left.
    expected = torch.tensor([[1.0, 0.5, 0.5], [1.0, 0.5, 0.5], [0.0, 1.0, 1.0]]) / 6
    torch.testing.assert_close(plan.exp(), expected, rtol=0, atol=1e-4)
