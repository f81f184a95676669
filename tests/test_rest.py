"""Rest: towers whose modality is away do not learn from remembered items."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from continual_mm.definitions import Scenario, SpaceSettings, Stage, Training
from continual_mm.learning.learner import Learner
from continual_mm.plugins.freeze import Freeze
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.replay import Replay
from continual_mm.plugins.rest import Rest

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


def test_a_tower_whose_modality_is_away_stays_bit_for_bit_and_learns_again_when_it_is_back(
    weights_by_stage,
) -> None:
    first, second, third = weights_by_stage(Rest())
    assert moved(first, second) == {"video"}
    assert moved(second, third) == {"audio"}


def test_without_rest_replay_moves_all_old_towers(weights_by_stage) -> None:
    first, second, third = weights_by_stage()
    assert moved(first, second) == {"video", "audio"}
    assert moved(second, third) == {"video", "audio", "text"}


@pytest.mark.parametrize("order", [1, -1])
def test_beside_freeze_nothing_wakes_that_is_frozen_for_good(weights_by_stage, order: int) -> None:
    first, second, third = weights_by_stage(*[Rest(), Freeze()][::order])
    assert moved(first, second) == moved(second, third) == set()


def test_a_finished_stage_is_looked_at_with_every_tower_awake(weights_by_stage) -> None:
    asleep: list[int] = []

    class Look(Plugin):
        def after_training_exp(self, strategy: Learner, *args: object, **kwargs: object) -> None:
            parameters = strategy.space.encoders.parameters()
            asleep.append(sum(not parameter.requires_grad for parameter in parameters))

    weights_by_stage(Rest(), Look())
    assert asleep == [0, 0, 0]
