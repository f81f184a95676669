"""Rest: towers whose modality is away do not learn from remembered items."""

from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor

from continual_mm.arrivals import plan
from continual_mm.data.dataset import Dataset
from continual_mm.definitions import Scenario, SpaceSettings, Stage, Training
from continual_mm.learning.learner import Learner
from continual_mm.learning.stream import benchmark
from continual_mm.memory import Memory
from continual_mm.plugins.freeze import Freeze
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.realign import Realign
from continual_mm.plugins.recollection import Recollection
from continual_mm.plugins.replay import Replay
from continual_mm.plugins.rest import Rest
from continual_mm.plugins.warmup import Warmup
from continual_mm.space.space import JointSpace

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


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    dice = np.random.default_rng(3)
    shared = dice.standard_normal((120, 6))
    arrays = {
        name: (shared @ dice.standard_normal((6, size))).astype(np.float32)
        for name, size in (("video", 8), ("audio", 7), ("text", 5), ("depth", 4))
    }
    return Dataset.from_arrays(arrays, split=np.repeat([0, 1, 2], [80, 20, 20]))


def weights_by_stage(dataset: Dataset, *plugins: Plugin) -> list[dict[str, Tensor]]:
    """The weights of the towers at each stage's end, with a memory that is replayed."""
    streams = benchmark(SCENARIO, plan(SCENARIO, dataset.card), dataset, seed=0)
    memory = Memory(20)
    everything = [Recollection(memory), Replay(), *plugins]
    learner = Learner(space=JointSpace(SCENARIO.space), seed=0, plugins=everything, memory=memory)
    found = []
    for stage in range(3):
        learner.learn(streams, stage)
        state = learner.space.encoders.state_dict()
        found.append({name: value.clone() for name, value in state.items()})
    return found


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Modalities of which a weight has changed."""
    return {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}


def test_a_tower_whose_modality_is_away_stays_bit_for_bit_and_learns_again_when_it_is_back(
    dataset: Dataset,
) -> None:
    first, second, third = weights_by_stage(dataset, Rest())
    assert moved(first, second) == {"video"}
    assert moved(second, third) == {"audio"}


def test_without_rest_replay_moves_all_old_towers(dataset: Dataset) -> None:
    first, second, third = weights_by_stage(dataset)
    assert moved(first, second) == {"video", "audio"}
    assert moved(second, third) == {"video", "audio", "text"}


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_beside_freeze_nothing_wakes_that_is_frozen_for_good(
    dataset: Dataset, order: tuple[int, ...]
) -> None:
    plugins = [Rest(), Freeze(), Realign(steps=3)]
    first, second, third = weights_by_stage(dataset, *(plugins[place] for place in order))
    assert moved(first, second) == moved(second, third) == set()


@pytest.mark.parametrize("order", [1, -1])
def test_the_steps_of_realign_leave_it_at_rest(dataset: Dataset, order: int) -> None:
    first, second, _ = weights_by_stage(dataset, *[Rest(), Realign(steps=3)][::order])
    assert "audio" not in moved(first, second)


@pytest.mark.parametrize("order", [1, -1])
def test_beside_warmup_what_wakes_is_in_training_mode(dataset: Dataset, order: int) -> None:
    modes: dict[str, set[bool]] = {}

    class Look(Plugin):
        def before_backward(self, strategy: Learner, *args: object, **kwargs: object) -> None:
            if strategy.stage == 1 and strategy.step > 5:
                for name in ("video", "audio"):
                    modes.setdefault(name, set()).add(strategy.space.tower(name).training)

    weights_by_stage(dataset, *[Rest(), Warmup(share=0.5)][::order], Look())
    assert modes == {"video": {True}, "audio": {False}}


def test_a_finished_stage_is_looked_at_with_every_tower_awake(dataset: Dataset) -> None:
    asleep: list[int] = []

    class Look(Plugin):
        def after_training_exp(self, strategy: Learner, *args: object, **kwargs: object) -> None:
            parameters = strategy.space.encoders.parameters()
            asleep.append(sum(not parameter.requires_grad for parameter in parameters))

    weights_by_stage(dataset, Rest(), Look())
    assert asleep == [0, 0, 0]
