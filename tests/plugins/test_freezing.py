"""Freeze, Rest, Slow, Warmup: which towers learn in a stage, when and at what rate."""

import pytest
import torch

from continual_mm.definitions.scenario import Stage
from continual_mm.plugins.distill import Distill
from continual_mm.plugins.ewc import EWC
from continual_mm.plugins.freeze import Freeze, freeze
from continual_mm.plugins.interpolate import Interpolate
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.realign import Realign
from continual_mm.plugins.replay import Replay
from continual_mm.plugins.rest import Rest
from continual_mm.plugins.slow import Slow
from continual_mm.plugins.transport import Transport
from continual_mm.plugins.warmup import Warmup
from continual_mm.space.naming import modality_of, named_parameters


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


def test_frozen_modules_stay_in_evaluation_mode_while_the_new_tower_trains(trained, looking):
    def look(strategy):
        modes.append([strategy.space.tower(m.name).training for m in strategy.space.modalities])

    modes = []
    trained(Freeze(), looking(0, look), looking(1, look))
    assert modes == [[True, True]] * 12 + [[False, False, True]] * 12


@pytest.fixture
def weights_by_stage(scenario, changed, begun):
    """(plugins) -> the towers' weights at each stage's end, with a memory that is replayed."""
    stages = (*scenario.stages[:2], Stage(add=("depth",), pairs=("audio-depth",)))

    def by_stage(*plugins):
        learner, streams = begun(Replay(), *plugins, scenario=changed(scenario, stages=stages))
        found = []
        for stage in range(3):
            learner.learn(streams, stage)
            state = learner.space.encoders.state_dict()
            found.append({name: value.clone() for name, value in state.items()})
        return found

    return by_stage


def moved(before, after):
    """Modalities of which a weight has changed."""
    return {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("order", [1, -1])
def test_a_tower_whose_modality_is_absent_stays_bit_for_bit_and_learns_again_when_it_is_back(
    weights_by_stage, order
):
    first, second, third = weights_by_stage(*[Rest(), Realign(steps=3)][::order])
    assert moved(first, second) == {"video"}
    assert moved(second, third) == {"audio"}


@pytest.mark.parametrize("order", [1, -1])
def test_beside_warmup_what_is_unfrozen_is_in_training_mode(weights_by_stage, looking, order):
    modes = []

    def look(strategy):
        modes.append(tuple(strategy.space.tower(name).training for name in ("video", "audio")))

    weights_by_stage(*[Rest(), Warmup(share=0.5)][::order], looking(1, look))
    assert modes == [(False, False)] * 6 + [(True, False)] * 6


def test_at_a_stages_end_no_tower_is_frozen(weights_by_stage):
    frozen = []

    class Look(Plugin):
        def after_training_exp(self, strategy, *args, **kwargs):
            parameters = strategy.space.encoders.parameters()
            frozen.append(sum(not parameter.requires_grad for parameter in parameters))

    weights_by_stage(Rest(), Look())
    assert frozen == [0, 0, 0]


def names_by_scale(learner):
    names = {parameter: name for name, parameter in named_parameters(learner.space)}
    return {
        group["lr_scale"]: {names[parameter] for parameter in group["params"]}
        for group in learner.optimizer.param_groups
    }


def test_a_step_of_an_old_tower_is_shorter_by_the_ratio_and_a_new_towers_is_not(
    scenario, changed, trained, values
):
    """The second stage takes one step, whose length is the rate times what Adam makes of it."""
    first, second, third = scenario.stages
    scenario = changed(scenario, stages=(first, second.model_copy(update={"steps": 1}), third))
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
    for name in naive.keys() - before.keys():
        torch.testing.assert_close(slow[name], naive[name], rtol=0, atol=1e-6)


def test_with_ratio_zero_old_towers_stay_bit_for_bit_while_all_else_learns(trained, values):
    before = values(trained(Slow(ratio=0.0), stages=1))
    after = values(trained(Slow(ratio=0.0)))
    towers = {name for name in before if modality_of(name) is not None}
    assert all(torch.equal(before[name], after[name]) for name in towers)
    assert not torch.equal(before["log_scale"], after["log_scale"])


def test_what_arrived_last_is_slow_at_the_next_stage_and_all_keep_their_moments(trained):
    learner = trained(Slow(ratio=0.5), stages=3)
    assert {modality_of(n) for n in names_by_scale(learner)[0.5]} == {"video", "audio", "text"}
    assert {modality_of(n) for n in names_by_scale(learner)[1.0]} == {"depth", None}
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


OLD, NEW = "encoders.video.unit.fc.weight", "encoders.text.unit.fc.weight"


class Diary(Plugin):
    """Notes at each step of the second stage what has changed since the step before."""

    def __init__(self, values):
        super().__init__()
        self.values = values
        self.moved, self.modes = {OLD: [], NEW: [], "log_scale": [], "centroids": []}, []

    def before_forward(self, strategy, *args, **kwargs):
        if strategy.stage == 1:
            self._last = self.values(strategy)
            towers = [strategy.space.tower(name) for name in ("video", "text")]
            self.modes.append(tuple(tower.unit.fc.training for tower in towers))

    def after_training_iteration(self, strategy, *args, **kwargs):
        if strategy.stage == 1:
            now = self.values(strategy)
            for name, steps in self.moved.items():
                if not torch.equal(now[name], self._last[name]):
                    steps.append(strategy.step)


def test_old_towers_begin_to_learn_when_the_share_is_over(trained, values):
    diary = Diary(values)
    trained(Warmup(share=0.4), diary, evaluate_every=2, refresh_every=1)
    assert diary.moved[NEW] == list(range(12))
    for name in (OLD, "log_scale", "centroids"):
        assert diary.moved[name] == list(range(5, 12)), name  # 5 is the first above 4.8
    assert diary.modes == [(False, True)] * 5 + [(True, True)] * 7


def test_a_whole_stage_of_it_is_freezing(trained, values, same):
    frozen = values(trained(Freeze(), stages=3))
    assert same(frozen, values(trained(Warmup(share=1.0), stages=3)))


def test_a_tower_that_another_plugin_holds_stays_held_when_the_others_are_released(trained, values):
    class HoldAudio(Plugin):
        def before_train_dataset_adaptation(self, strategy, *args, **kwargs):
            if "audio" in strategy.space:
                freeze(strategy.space.tower("audio").parameters())

        def before_forward(self, strategy, *args, **kwargs):
            modes[strategy.stage, strategy.step] = [
                strategy.space.tower(name).unit.fc.training for name in ("audio", "video")
            ]

    modes = {}
    first = values(trained(stages=1))
    last = values(trained(Warmup(share=0.5), HoldAudio()))
    assert (modes[1, 5], modes[1, 6]) == ([False, False], [False, True])
    assert not torch.equal(first[OLD], last[OLD])
    audio = [name for name in first if name.startswith("encoders.audio.")]
    assert all(torch.equal(first[name], last[name]) for name in audio)


def test_old_towers_go_on_with_the_moments_that_they_had(trained, same):
    moments = {}

    class Moments(Plugin):
        def before_forward(self, strategy, *args, **kwargs):
            state = strategy.optimizer.state[strategy.space.tower("video").unit.fc.weight]
            moments[strategy.stage, strategy.step] = {k: v.clone() for k, v in state.items()}

    trained(Warmup(share=0.5), Moments())
    assert moments[1, 0]["step"] == moments[1, 6]["step"] == 12
    assert same(moments[1, 0], moments[1, 6])
    assert moments[1, 11]["step"] == 12 + 5


@pytest.mark.parametrize("first", [True, False])
def test_at_the_stages_end_other_plugins_find_everything_trainable(first, trained):
    found = []
    for stages in (1, 2):
        ewc, warmup = EWC(weight=0.1, batches=2, rows=8), Warmup(share=1.0)
        trained(*((ewc, warmup) if first else (warmup, ewc)), stages=stages)
        found.append(ewc.state()[f"importance/{OLD}"])
    assert not torch.equal(*found)


@pytest.mark.parametrize("step", [5, 6, 11])
def test_a_run_resumed_before_or_behind_the_release_ends_with_the_same_bits(step, ends, same):
    def make():
        others = [Transport(rows=16), Distill(rows=16, current=1.0), Slow(), Interpolate()]
        return [Warmup(share=0.5), *others]

    whole, inside, _ = ends(make, at=step)
    assert same(whole, inside)
