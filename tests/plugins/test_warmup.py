"""Warm-up: the new tower learns alone first, then all learn as if nothing had been."""

import pytest
import torch

from continual_mm.definitions.scenario import Scenario
from continual_mm.plugins.distill import Distill
from continual_mm.plugins.ewc import EWC
from continual_mm.plugins.freeze import Freeze, freeze
from continual_mm.plugins.interpolate import Interpolate
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.slow import Slow
from continual_mm.plugins.transport import Transport
from continual_mm.plugins.warmup import Warmup


@pytest.fixture
def scenario(scenario: Scenario) -> Scenario:
    """Features are dropped at random, so that resuming needs the generators too."""
    space = scenario.space.model_copy(update={"feature_dropout": 0.2})
    return scenario.model_copy(update={"space": space})


OLD, NEW = "encoders.video.unit.fc.weight", "encoders.text.unit.fc.weight"


class Diary(Plugin):
    """Notes at each step of the second stage what has changed since the step before."""

    def __init__(self, values) -> None:
        super().__init__()
        self.values = values
        self.moved: dict[str, list[int]] = {OLD: [], NEW: [], "log_scale": [], "centroids": []}
        self.modes: list[tuple[bool, bool]] = []
        self._last: dict[str, torch.Tensor] = {}

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


def test_old_towers_begin_to_learn_when_the_share_is_over(scenario, trained, values):
    diary = Diary(values)
    watched = scenario.training.model_copy(update={"evaluate_every": 2})
    scenario = scenario.model_copy(
        update={
            "training": watched,
            "space": scenario.space.model_copy(update={"refresh_every": 1}),
        }
    )
    trained(Warmup(share=0.4), diary, scenario=scenario)
    assert diary.moved[NEW] == list(range(12))
    for name in (OLD, "log_scale", "centroids"):
        assert diary.moved[name] == list(range(5, 12)), name  # 5 is the first above 4.8
    assert diary.modes == [(False, True)] * 5 + [(True, True)] * 7


def test_a_whole_stage_of_it_is_freezing(trained, values, same):
    frozen = values(trained(Freeze(), stages=3))
    assert same(frozen, values(trained(Warmup(share=1.0), stages=3)))


@pytest.mark.parametrize("first", [True, False])
def test_what_another_plugin_freezes_for_good_is_not_released(first, trained, values, same):
    plugins = (Freeze(), Warmup()) if first else (Warmup(), Freeze())
    diary = Diary(values)
    learner = trained(*plugins, diary, stages=3)
    assert same(values(trained(Freeze(), stages=3)), values(learner))
    assert set(diary.modes) == {(False, True)}


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
    ewc, warmup = EWC(weight=0.1, batches=2, rows=8), Warmup(share=1.0)
    trained(*((ewc, warmup) if first else (warmup, ewc)), stages=1)
    before = ewc.state()[f"importance/{OLD}"].clone()
    ewc, warmup = EWC(weight=0.1, batches=2, rows=8), Warmup(share=1.0)
    trained(*((ewc, warmup) if first else (warmup, ewc)))
    assert not torch.equal(before, ewc.state()[f"importance/{OLD}"])


@pytest.mark.parametrize("step", [5, 6, 11])
def test_a_run_resumed_before_or_behind_the_release_ends_with_the_same_bits(step, ends, same):
    def make() -> list[Plugin]:
        others = [Transport(rows=16), Distill(rows=16, current=1.0), Slow(), Interpolate()]
        return [Warmup(share=0.5), *others]

    whole, inside, _ = ends(make, at=step, items=24)
    assert same(whole, inside)
