"""Dual ascent on a drift's budget."""

import math

import pytest
import torch

from continual_mm.plugins.multiplier import Multiplier, ascended


@pytest.mark.parametrize("budget", [0.05, 0.5])
def test_on_a_convex_problem_the_multiplier_is_that_of_the_lagrangian(budget: float) -> None:
    """Minimise (x - 2)^2 with x^2 <= budget: x = sqrt(budget), multiplier = 2 / x - 1."""
    multiplier = Multiplier(3.0, budget=budget)
    x = torch.tensor(0.0, requires_grad=True)
    for _ in range(1000):
        loss = (x - 2).square() + multiplier.value * x.square()
        (slope,) = torch.autograd.grad(loss, x)
        with torch.no_grad():
            x -= 0.05 / (1 + float(multiplier.value)) * slope
        multiplier.ascend([x.square()])
    assert x.item() == pytest.approx(math.sqrt(budget), rel=0.02)
    assert float(multiplier.value) == pytest.approx(2 / math.sqrt(budget) - 1, rel=0.02)


def test_a_loose_budget_lets_the_weight_vanish_down_to_its_bound() -> None:
    multiplier = Multiplier(3.0, budget=100.0)
    for _ in range(200):
        multiplier.ascend([torch.tensor(0.01)])
    assert float(multiplier.value) == pytest.approx(3e-6)


def test_a_step_never_changes_the_weight_by_more_than_a_fifth() -> None:
    now = ascended(torch.tensor(1.0), torch.tensor(1e9), budget=0.1, start=1.0)
    assert now.item() == pytest.approx(math.exp(0.2))


def test_without_a_budget_it_is_the_number_given_and_remembers_nothing() -> None:
    multiplier = Multiplier(3.0, budget=0.0)
    multiplier.ascend([torch.tensor(5.0)])
    assert multiplier.value == 3.0
    assert multiplier.state() == {}
