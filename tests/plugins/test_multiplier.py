"""The weight that a drift's budget leads to."""

import math

import pytest
import torch

from continual_mm.plugins.transport import Multiplier, ascended, force


@pytest.mark.parametrize("budget", [0.05, 0.5])
@pytest.mark.parametrize("weight", [0.3, 30.0])
def test_on_a_convex_problem_the_weight_is_that_of_the_lagrangian(budget, weight) -> None:
    """Minimise (x - 2)^2 with x^2 <= budget: x = sqrt(budget), multiplier = 2 / x - 1."""
    multiplier = Multiplier(weight, budget=budget)
    x = torch.tensor(0.0, requires_grad=True)
    for _ in range(1000):
        loss = (x - 2).square() + multiplier.weigh([x.square()]) * x.square()
        (slope,) = torch.autograd.grad(loss, x)
        with torch.no_grad():
            x -= 0.05 / (1 + float(multiplier.value)) * slope
    assert x.item() == pytest.approx(math.sqrt(budget), rel=0.02)
    assert float(multiplier.value) == pytest.approx(2 / math.sqrt(budget) - 1, rel=0.05)


def test_below_a_budget_that_was_never_exceeded_there_is_no_force_at_all() -> None:
    multiplier = Multiplier(3.0, budget=1.0)
    assert {float(multiplier.weigh([torch.tensor(d)])) for d in (0.0, 0.3, 0.9, 0.99)} == {0.0}
    assert float(multiplier.weigh([torch.tensor(1.5)])) > 0


def test_what_a_stage_begins_with_is_not_counted_as_drift() -> None:
    noisy, clean = Multiplier(3.0, budget=0.25), Multiplier(3.0, budget=0.25)
    for drift in (0.0, 0.5, 0.75, 0.125):
        found = noisy.weigh([torch.tensor(drift + 4.0)])
        assert float(found) == float(clean.weigh([torch.tensor(drift)]))
    assert float(noisy.value) > 0
    noisy.restart()
    assert noisy.value == 3.0
    assert float(noisy.weigh([torch.tensor(9.0)])) == 0.0


def test_pairs_count_by_their_mean() -> None:
    one, two = Multiplier(3.0, budget=1.0), Multiplier(3.0, budget=1.0)
    for drift in (0.0, 2.0):
        mean = one.weigh([torch.tensor(drift)])
        assert float(mean) == float(two.weigh([torch.tensor(drift / 2), torch.tensor(drift * 1.5)]))


def test_a_step_never_changes_the_multiplier_by_more_than_a_fifth() -> None:
    now = ascended(torch.tensor(1.0), torch.tensor(1.0), scale=1.0)
    assert now.item() == pytest.approx(math.exp(0.2))


def test_a_budget_that_no_weight_can_keep_ends_at_a_thousand_times_the_weight() -> None:
    multiplier = Multiplier(2.0, budget=1.0)
    for drift in [0.0] + [50.0] * 100 + [1.0]:
        multiplier.weigh([torch.tensor(drift)])
    assert float(multiplier.value) == pytest.approx(2000.0)


def test_the_weight_is_larger_above_the_budget_and_smaller_below_it() -> None:
    now = torch.tensor(1.0)
    forces = [float(force(now, torch.tensor(e), scale=1.0)) for e in (-1.0, 0.0, 1.0)]
    assert forces == pytest.approx([math.exp(-3), 1.0, math.exp(3)])


def test_a_fresh_one_goes_on_from_a_state() -> None:
    first, fresh = Multiplier(3.0, budget=0.1), Multiplier(3.0, budget=0.1)
    for drift in (0.5, 0.7, 0.9):
        first.weigh([torch.tensor(drift)])
    fresh.load_state(first.state())
    for drift in (0.65, 0.55):
        assert float(first.weigh([torch.tensor(drift)])) == float(
            fresh.weigh([torch.tensor(drift)])
        )


def test_without_a_budget_it_is_the_number_given_and_remembers_nothing() -> None:
    multiplier = Multiplier(3.0, budget=0.0)
    assert multiplier.weigh([torch.tensor(5.0)]) == 3.0
    assert multiplier.state() == {}
