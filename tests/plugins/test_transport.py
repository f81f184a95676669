"""Transport: plans that are kept, the weight that a budget leads to, and both in training."""

import math

import numpy as np
import pytest
import torch

from continual_mm.definitions.modality import pair
from continual_mm.plugins import transport
from continual_mm.plugins.transport import KeptPlans, Multiplier, Transport

EPSILON = 0.5
PAIRS = (pair("audio", "video"),)


def kept(*, trust=1.0, unbalanced=0.0, right_only=True):
    return KeptPlans(epsilon=EPSILON, trust=trust, unbalanced=unbalanced, right_only=right_only)


@pytest.fixture
def exact(monkeypatch):
    monkeypatch.setattr(transport, "TOLERANCE", 1e-14)
    monkeypatch.setattr(transport, "ITERATIONS", 20_000)


def teacher():
    """Items 0 and 2 find each other; 1 and 3 are mistaken for one another."""
    cost = torch.ones(1, 4, 4, dtype=torch.float64)
    for first, second in ((0, 0), (2, 2), (1, 3), (3, 1)):
        cost[0, first, second] = 0
    return cost


def noise(seed=0):
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


@pytest.mark.parametrize("budget", [0.05, 0.5])
@pytest.mark.parametrize("weight", [0.3, 30.0])
def test_on_a_convex_problem_the_weight_is_that_of_the_lagrangian(budget, weight):
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


def test_below_a_budget_that_was_never_exceeded_there_is_no_force_at_all():
    multiplier = Multiplier(3.0, budget=1.0)
    assert {float(multiplier.weigh([torch.tensor(d)])) for d in (0.0, 0.3, 0.9, 0.99)} == {0.0}
    assert float(multiplier.weigh([torch.tensor(1.5)])) > 0


def test_what_a_stage_begins_with_is_not_counted_as_drift():
    noisy, clean = Multiplier(3.0, budget=0.25), Multiplier(3.0, budget=0.25)
    for drift in (0.0, 0.5, 0.75, 0.125):
        found = noisy.weigh([torch.tensor(drift + 4.0)])
        assert float(found) == float(clean.weigh([torch.tensor(drift)]))
    assert float(noisy.value) > 0
    noisy.restart()
    assert noisy.value == 3.0
    assert float(noisy.weigh([torch.tensor(9.0)])) == 0.0


def test_pairs_count_by_their_mean():
    one, two = Multiplier(3.0, budget=1.0), Multiplier(3.0, budget=1.0)
    for drift in (0.0, 2.0):
        mean = one.weigh([torch.tensor(drift)])
        assert float(mean) == float(two.weigh([torch.tensor(drift / 2), torch.tensor(drift * 1.5)]))


@pytest.mark.parametrize("excess", [-1.0, 0.0, 1.0])
def test_a_step_changes_the_multiplier_by_a_fifth_and_bends_the_weight_further(excess):
    multiplier = Multiplier(1.0, budget=1.0)
    multiplier.load_state({"multiplier": torch.tensor(1.0), "first drift": torch.tensor(0.0)})
    found = multiplier.weigh([torch.tensor(1.0 + excess)])
    kept = multiplier.state()["multiplier"]
    assert float(kept) == pytest.approx(math.exp(0.2 * excess))
    assert float(found / kept) == pytest.approx(math.exp(3 * excess))


def test_a_budget_that_no_weight_can_keep_ends_at_a_thousand_times_the_weight():
    multiplier = Multiplier(2.0, budget=1.0)
    for drift in [0.0] + [50.0] * 100 + [1.0]:
        multiplier.weigh([torch.tensor(drift)])
    assert float(multiplier.value) == pytest.approx(2000.0)


def test_without_a_budget_it_is_the_number_given_and_remembers_nothing():
    multiplier = Multiplier(3.0, budget=0.0)
    assert multiplier.weigh([torch.tensor(5.0)]) == 3.0
    assert multiplier.state() == {}


@pytest.fixture
def scenario(scenario):
    """Two stages only, so that each has more items."""
    return scenario.model_copy(update={"stages": scenario.stages[:2]})


OPTIONS = {
    "trust": {"trust": 0.5},
    "budget": {"budget": 0.05},
    "unbalanced": {"unbalanced": 0.5},
    "right_only": {"right_only": 1},
    "right_only and trust": {"right_only": 1, "trust": 0.5},
    "all": {"trust": 0.7, "budget": 0.1, "unbalanced": 1.0, "right_only": 1},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_it_changes_training_but_not_the_first_stage(name, trained, values, same):
    plain = values(trained(Transport(rows=16)))
    assert not same(plain, values(trained(Transport(rows=16, **OPTIONS[name]))))
    naive = values(trained(stages=1))
    assert same(naive, values(trained(Transport(rows=16, **OPTIONS[name]), stages=1)))


@pytest.mark.parametrize("rows", [16, 24])
@pytest.mark.parametrize("name", ["all", "trust", "budget"])
def test_a_run_resumed_inside_a_stage_ends_with_the_same_bits(name, rows, ends, same):
    whole, inside = ends(lambda: [Transport(rows=rows, **OPTIONS[name])])
    assert same(whole, inside)


@pytest.fixture
def longer(scenario, changed):
    """(steps, settings) -> the second stage takes more steps, the first as many as before."""
    first, second = scenario.stages
    stages = (first.model_copy(update={"steps": scenario.training.steps}), second)
    return lambda steps, **settings: changed(scenario, steps=steps, stages=stages, **settings)


@pytest.fixture
def drift(longer, trained):
    """(rate, options) -> divergence of the last steps of a long stage."""

    def drift_at(rate, **options):
        seen = []

        class Watched(Transport):
            def _divergences(self, *args, **kwargs):
                found = super()._divergences(*args, **kwargs)
                seen.extend(float(value.detach()) for value in found.values())
                return found

        plugin = Watched(rows=24, **options)
        trained(plugin, scenario=longer(120, learning_rate=rate))
        return float(np.mean(seen[-10:]))

    return drift_at


@pytest.mark.parametrize("rate", [1e-2, 1e-3])
def test_a_tight_budget_is_where_the_drift_ends_and_one_never_reached_is_naive(rate, drift):
    naive = drift(rate, weight=1e-9)
    for budget in (0.15 * naive, 0.5 * naive):
        assert drift(rate, budget=budget) == pytest.approx(budget, rel=0.2)
    assert drift(rate, budget=1000.0) == pytest.approx(naive, rel=0.01)


def test_the_gauge_is_multiplied_along_with_the_weight_that_was_found(
    longer, trained, looking, terms_of
):
    free, weights = [], []

    def watch(strategy):
        gauge, (value,) = strategy.terms["gauge"], terms_of(strategy, "transport").values()
        weight = plugin.curves["transport/weight"]
        weights.append(float(weight))
        free.append(float(gauge) / (0.5 * float(weight)) if weight else float(gauge + value))

    plugin = Transport(rows=24, budget=0.05, gauge=0.5)
    trained(plugin, looking(1, watch), scenario=longer(60))
    assert weights[0] == free[0] == 0.0
    assert max(weights) > 0.1
    assert 1e-4 < free[-1] < 1.0  # a mean squared distance of unit vectors
