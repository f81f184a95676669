"""Transport's trust, budget and unbalanced plans, in training."""

from functools import partial

import numpy as np
import pytest
from safetensors.torch import load, save

from continual_mm.definitions.scenario import Scenario
from continual_mm.plugins.transport import Transport


@pytest.fixture
def scenario(scenario: Scenario) -> Scenario:
    """Two stages only, so that each has more items."""
    return scenario.model_copy(update={"stages": scenario.stages[:2]})


@pytest.fixture
def begun(begun):
    """With a memory of 24 items."""
    return partial(begun, items=24)


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
@pytest.mark.parametrize("name", OPTIONS)
def test_a_fresh_plugin_with_a_state_from_inside_a_stage_goes_on_exactly(
    name, rows, trained, looking, terms_of, contained, same
):
    plugin = Transport(rows=rows, **OPTIONS[name])
    saved = []

    def check(strategy):
        before = terms_of(strategy, "transport")
        if saved:
            fresh = Transport(rows=rows, **OPTIONS[name])
            fresh.load_state(load(saved[-1]))
            strategy.terms = {}
            fresh.before_backward(strategy)
            assert before
            assert contained(before, strategy.terms)
            assert same(plugin.state(), fresh.state())
        saved.append(save(plugin.state()))

    trained(plugin, look := looking(1, check))
    assert look.calls == 12


@pytest.mark.parametrize("name", OPTIONS)
def test_at_the_teacher_there_is_no_divergence(name, trained, looking, terms_of):
    def check(strategy):
        if not strategy.step:
            (value,) = terms_of(strategy, "transport").values()
            assert abs(float(value)) < 1e-3

    trained(Transport(weight=1.0, rows=24, **OPTIONS[name]), look := looking(1, check))
    assert look.calls == 12


def longer(scenario: Scenario, steps: int, **training: float) -> Scenario:
    """The second stage takes more steps, the first as many as ever."""
    first, second = scenario.stages
    first = first.model_copy(update={"steps": scenario.training.steps})
    training = scenario.training.model_copy(update={"steps": steps, **training})
    return scenario.model_copy(update={"training": training, "stages": (first, second)})


@pytest.fixture
def drift(scenario, trained):
    """(rate, options) -> divergence of the last steps of a long stage."""

    def drift_at(rate: float, **options: float) -> float:
        seen = []

        class Watched(Transport):
            def _divergences(self, *args, **kwargs):
                found = super()._divergences(*args, **kwargs)
                seen.extend(float(value.detach()) for value in found.values())
                return found

        plugin = Watched(rows=24, **options)
        trained(plugin, scenario=longer(scenario, 120, learning_rate=rate))
        return float(np.mean(seen[-10:]))

    return drift_at


@pytest.mark.parametrize("rate", [1e-2, 1e-3])
def test_a_tight_budget_is_where_the_drift_ends_and_one_never_reached_is_naive(rate, drift):
    naive = drift(rate, weight=1e-9)
    for budget in (0.15 * naive, 0.5 * naive):
        assert drift(rate, budget=budget) == pytest.approx(budget, rel=0.2)
    assert drift(rate, budget=1000.0) == pytest.approx(naive, rel=0.01)


def test_the_gauge_is_multiplied_along_with_the_weight_that_was_found(
    scenario, trained, looking, terms_of
):
    free, weights = [], []

    def watch(strategy):
        gauge, (value,) = strategy.terms["gauge"], terms_of(strategy, "transport").values()
        weight = plugin.curves["transport/weight"]
        weights.append(float(weight))
        free.append(float(gauge) / (0.5 * float(weight)) if weight else float(gauge + value))

    plugin = Transport(rows=24, budget=0.05, gauge=0.5)
    trained(plugin, looking(1, watch), scenario=longer(scenario, 60))
    assert weights[0] == free[0] == 0.0
    assert max(weights) > 0.1
    assert 1e-4 < free[-1] < 1.0  # a mean squared distance of unit vectors


def test_parameters_out_of_range_are_refused():
    for wrong in ({"trust": 1.5}, {"budget": -1.0}, {"unbalanced": np.nan}, {"right_only": 2}):
        with pytest.raises(ValueError, match=rf"transport\.{next(iter(wrong))} = "):
            Transport(**wrong)
