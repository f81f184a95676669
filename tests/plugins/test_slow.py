"""Slow: old towers learn at a part of the rate, and only they."""

import pytest
import torch

from continual_mm.definitions.scenario import Scenario
from continual_mm.learning.learner import Learner
from continual_mm.plugins.slow import Slow
from continual_mm.plugins.warmup import Warmup
from continual_mm.space.naming import modality_of, named_parameters


def brief(scenario: Scenario) -> Scenario:
    """The second stage takes one step, whose length is the rate times what Adam makes of it."""
    first, second, third = scenario.stages
    stages = (first, second.model_copy(update={"steps": 1}), third)
    return scenario.model_copy(update={"stages": stages})


def names_by_scale(learner: Learner) -> dict[float, set[str]]:
    names = {parameter: name for name, parameter in named_parameters(learner.space)}
    return {
        group["lr_scale"]: {names[parameter] for parameter in group["params"]}
        for group in learner.optimizer.param_groups
    }


def test_a_step_of_an_old_tower_is_shorter_by_the_ratio_and_a_new_towers_is_not(
    scenario, trained, values
):
    scenario = brief(scenario)
    before = values(trained(stages=1, scenario=scenario))
    naive = values(trained(scenario=scenario))
    slow = values(trained(Slow(ratio=0.25), scenario=scenario))
    moved = 0
    for name, value in before.items():
        if modality_of(name) is None:
            assert torch.equal(slow[name], naive[name])
        else:
            expected = value + 0.25 * (naive[name] - value)
            torch.testing.assert_close(slow[name], expected, rtol=0, atol=1e-6)
            moved += int(not torch.equal(naive[name], value))
    assert moved > 4
    new = naive.keys() - before.keys()
    assert new
    for name in new:
        torch.testing.assert_close(slow[name], naive[name], rtol=0, atol=1e-6)


def test_with_ratio_zero_old_towers_stay_bit_for_bit_while_all_else_learns(
    scenario, trained, values
):
    before = values(trained(Slow(ratio=0.0), stages=1))
    after = values(trained(Slow(ratio=0.0)))
    towers = {name for name in before if modality_of(name) is not None}
    assert all(torch.equal(before[name], after[name]) for name in towers)
    assert not torch.equal(before["log_scale"], after["log_scale"])
    weight = "encoders.text.unit.fc.weight"
    untrained = values(trained(Slow(ratio=0.0), scenario=brief(scenario)))
    assert not torch.equal(untrained[weight], after[weight])


def test_what_arrived_last_is_slow_at_the_next_stage(trained):
    learner = trained(Slow(ratio=0.5), stages=2)
    assert {modality_of(n) for n in names_by_scale(learner)[0.5]} == {"video", "audio"}
    assert {modality_of(n) for n in names_by_scale(learner)[1.0]} == {"text", None}
    learner = trained(Slow(ratio=0.5), stages=3)
    assert {modality_of(n) for n in names_by_scale(learner)[0.5]} == {"video", "audio", "text"}
    assert {modality_of(n) for n in names_by_scale(learner)[1.0]} == {"depth", None}


def test_moments_survive_the_division_into_groups(trained):
    learner = trained(Slow(ratio=0.5), stages=3)
    steps = {
        name: int(learner.optimizer.state[parameter]["step"])
        for name, parameter in named_parameters(learner.space)
    }
    assert steps["encoders.audio.unit.fc.weight"] == 36 - 12  # no audio in the second stage
    assert steps["encoders.video.unit.fc.weight"] == 36
    assert steps["encoders.depth.unit.fc.weight"] == 12


def test_towers_that_wait_for_a_warm_up_are_slow_afterwards(trained, values, same):
    learner = trained(Warmup(share=0.5), Slow(ratio=0.5))
    assert {modality_of(n) for n in names_by_scale(learner)[0.5]} == {"video", "audio"}
    other = trained(Slow(ratio=0.5), Warmup(share=0.5))
    assert same(values(learner), values(other))


def test_the_former_name_of_the_scales_still_works_and_warns(trained):
    learner = trained(Slow(), stages=2)
    with pytest.warns(DeprecationWarning, match="lr_scale"):
        assert learner.pace is learner.lr_scale
    with pytest.warns(DeprecationWarning, match="lr_scale"):
        learner.pace = {"log_scale": 0.5}
    assert learner.lr_scale == {"log_scale": 0.5}
