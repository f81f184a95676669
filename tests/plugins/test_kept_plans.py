"""Plans that should stay, among all items or among those that the teacher gets right."""

import math

import pytest
import torch

from continual_mm.definitions.modality import pair
from continual_mm.plugins import transport as kept_plans
from continual_mm.plugins.transport import KeptPlans, PlanSettings

EPSILON = 0.5
PAIRS = (pair("audio", "video"),)


def kept(*, trust: float = 1.0, unbalanced: float = 0.0, right_only: bool = True) -> KeptPlans:
    return KeptPlans(PlanSettings(EPSILON, trust, unbalanced, right_only))


@pytest.fixture
def exact(monkeypatch):
    monkeypatch.setattr(kept_plans, "TOLERANCE", 1e-14)
    monkeypatch.setattr(kept_plans, "ITERATIONS", 20_000)


def teacher() -> torch.Tensor:
    """Items 0 and 2 find each other; 1 and 3 are mistaken for one another."""
    cost = torch.ones(1, 4, 4, dtype=torch.float64)
    for first, second in ((0, 0), (2, 2), (1, 3), (3, 1)):
        cost[0, first, second] = 0
    return cost


def noise(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 4, 4, generator=generator, dtype=torch.float64)


def test_of_two_right_items_the_divergence_is_that_of_a_two_by_two_plan(exact):
    """Such a plan has p / 2 on its diagonal, p / (1 - p) = exp(difference of costs / epsilon)."""
    plans = kept()
    plans.learn(PAIRS, teacher())
    cost = noise()
    cost[0, 0, 2] = cost[0, 2, 0] = 0.4
    cost[0, 0, 0] = cost[0, 2, 2] = 0.0
    p, q = (1 / (1 + math.exp(-difference / EPSILON)) for difference in (1.0, 0.4))
    expected = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    share = 2 / 4
    assert float(plans.divergence(PAIRS, cost)) == pytest.approx(share * expected, rel=1e-9)


@pytest.mark.parametrize("settings", [{}, {"trust": 0.4}, {"unbalanced": 0.7, "trust": 0.4}])
def test_its_gradient_agrees_with_finite_differences(settings, exact):
    plans = kept(**settings)
    plans.learn(PAIRS, teacher())
    live = noise().requires_grad_()
    assert torch.autograd.gradcheck(lambda cost: plans.divergence(PAIRS, cost), (live,))
    plans.divergence(PAIRS, live).sum().backward()
    assert live.grad[0, 0, 2] != 0
    assert not live.grad[0, [1, 3]].any()
    assert not live.grad[0, :, [1, 3]].any()


@pytest.mark.parametrize("settings", [{}, {"trust": 0.4}, {"unbalanced": 0.7}])
def test_where_the_teacher_is_right_throughout_nothing_is_left_out(settings):
    cost, later = 1 - torch.eye(4, dtype=torch.float64)[None] + 0.3 * noise(), noise(1)
    found = []
    for right_only in (True, False):
        plans = kept(**settings, right_only=right_only)
        plans.learn(PAIRS, cost)
        found.append(plans.divergence(PAIRS, later))
    assert float(found[0]) > 0.1
    assert torch.equal(*found)


def test_a_teacher_that_gets_nothing_right_keeps_nothing(exact):
    plans = kept(trust=0.5)
    plans.learn(PAIRS, 1 - torch.eye(4, dtype=torch.float64).flip(0)[None])
    assert plans.divergence(PAIRS, noise()).tolist() == [0.0]
    fresh = kept(trust=0.5)
    fresh.load_state(plans.state())
    assert fresh.divergence(PAIRS, noise()).tolist() == [0.0]
