"""Freeze: what was there before a stage takes no gradient and stays in evaluation mode."""

import torch

from continual_mm.plugins.freeze import Freeze
from continual_mm.plugins.plugin import Plugin
from continual_mm.space.naming import named_parameters


def test_the_optimizer_holds_the_new_tower_alone_and_buffers_stay_bit_for_bit(begun):
    learner, streams = begun(Freeze())
    learner.learn(streams, 0)
    before = {name: value.clone() for name, value in learner.space.state_dict().items()}
    learner.learn(streams, 1)
    after = learner.space.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    held = {id(p) for group in learner.optimizer.param_groups for p in group["params"]}
    names = {name for name, value in named_parameters(learner.space) if id(value) in held}
    assert names
    assert all(".text." in name for name in names)


def test_frozen_modules_stay_in_evaluation_mode_while_the_new_tower_trains(trained):
    modes = {}

    class Modes(Plugin):
        def after_training_iteration(self, strategy, *args, **kwargs):
            names = [name for name in ("video", "audio", "text") if name in strategy.space]
            modes[strategy.stage] = {name: strategy.space.tower(name).training for name in names}

    trained(Freeze(), Modes())
    assert modes[0] == {"video": True, "audio": True}
    assert modes[1] == {"video": False, "audio": False, "text": True}
