"""Rest: towers whose modality is absent do not learn from remembered items."""

from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from torch import Tensor

from continual_mm.definitions.scenario import Scenario, SpaceSettings, Stage, Training
from continual_mm.learning.learner import Learner
from continual_mm.plugins.freeze import Freeze
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.realign import Realign
from continual_mm.plugins.replay import Replay
from continual_mm.plugins.rest import Rest
from continual_mm.plugins.warmup import Warmup

SCENARIO = Scenario(
    name="rest",
    space=SpaceSettings(dim=16, clusters=4),
    training=Training(steps=10, batch_size=20, learning_rate=1e-2),
    stages=(
        Stage(add=("video", "audio")),
        Stage(add=("text",), pairs=("video-text",)),
        Stage(add=("depth",), pairs=("audio-depth",)),
    ),
)


@pytest.fixture
def weights_by_stage(begun) -> Callable[..., list[dict[str, Tensor]]]:
    """(plugins) -> the towers' weights at each stage's end, with a memory that is replayed."""

    def by_stage(*plugins: Plugin) -> list[dict[str, Tensor]]:
        learner, streams = begun(Replay(), *plugins, scenario=SCENARIO, items=20)
        found = []
        for stage in range(3):
            learner.learn(streams, stage)
            state = learner.space.encoders.state_dict()
            found.append({name: value.clone() for name, value in state.items()})
        return found

    return by_stage


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Modalities of which a weight has changed."""
    return {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}


def test_a_tower_whose_modality_is_absent_stays_bit_for_bit_and_learns_again_when_it_is_back(
    weights_by_stage,
) -> None:
    first, second, third = weights_by_stage(Rest())
    assert moved(first, second) == {"video"}
    assert moved(second, third) == {"audio"}


def test_without_it_replay_moves_all_old_towers(weights_by_stage) -> None:
    first, second, third = weights_by_stage()
    assert moved(first, second) == {"video", "audio"}
    assert moved(second, third) == {"video", "audio", "text"}


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_beside_freeze_nothing_is_unfrozen_that_is_frozen_for_good(
    weights_by_stage, order: tuple[int, ...]
) -> None:
    plugins = [Rest(), Freeze(), Realign(steps=3)]
    first, second, third = weights_by_stage(*(plugins[place] for place in order))
    assert moved(first, second) == moved(second, third) == set()


@pytest.mark.parametrize("order", [1, -1])
def test_the_steps_of_realign_leave_it_frozen(weights_by_stage, order: int) -> None:
    first, second, _ = weights_by_stage(*[Rest(), Realign(steps=3)][::order])
    assert "audio" not in moved(first, second)


@pytest.mark.parametrize("order", [1, -1])
def test_beside_warmup_what_is_unfrozen_is_in_training_mode(weights_by_stage, order: int) -> None:
    modes: dict[str, set[bool]] = {}

    class Look(Plugin):
        def before_backward(self, strategy: Learner, *args: object, **kwargs: object) -> None:
            if strategy.stage == 1 and strategy.step > 5:
                for name in ("video", "audio"):
                    modes.setdefault(name, set()).add(strategy.space.tower(name).training)

    weights_by_stage(*[Rest(), Warmup(share=0.5)][::order], Look())
    assert modes == {"video": {True}, "audio": {False}}


def test_at_a_stages_end_no_tower_is_frozen(weights_by_stage) -> None:
    frozen: list[int] = []

    class Look(Plugin):
        def after_training_exp(self, strategy: Learner, *args: object, **kwargs: object) -> None:
            parameters = strategy.space.encoders.parameters()
            frozen.append(sum(not parameter.requires_grad for parameter in parameters))

    weights_by_stage(Rest(), Look())
    assert frozen == [0, 0, 0]
