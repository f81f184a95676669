"""Pair LoRA: every new pair learns adapters of its own, and nothing that was there changes."""

import json
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import continual_mm as cm
from continual_mm.data.dataset import Dataset
from continual_mm.definitions.modality import pair
from continual_mm.definitions.scenario import (
    MemorySettings,
    Scenario,
    SpaceSettings,
    Stage,
    Strategy,
    Training,
)
from continual_mm.learning.learner import Learner
from continual_mm.plugins.freeze import Freeze
from continual_mm.plugins.pair_lora import PairLora
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.registry import defaults
from continual_mm.plugins.replay import Replay
from continual_mm.runs.run import open_run, run, train
from continual_mm.runs.session import Session, open_session
from continual_mm.runs.specification import Specification, opened
from continual_mm.system.errors import InputError

SIZES = {"video": 8, "audio": 7, "text": 5, "touch": 6}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    rng = np.random.default_rng(1)
    shared = rng.standard_normal((120, 6))
    arrays = {
        name: (shared @ rng.standard_normal((6, size))).astype(np.float32)
        for name, size in SIZES.items()
    }
    return Dataset.from_arrays(arrays, split=np.repeat([0, 1, 2], [60, 20, 40]))


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return Scenario(
        name="adapted",
        items="shared",
        space=SpaceSettings(dim=16, clusters=4, feature_dropout=0.1),
        training=Training(steps=12, batch_size=20, learning_rate=1e-2),
        stages=(
            Stage(add=("video", "audio")),
            Stage(add=("text",), pairs=("video-text", "audio-text")),
        ),
    )


@pytest.fixture(scope="module")
def longer(scenario: Scenario) -> Scenario:
    third = Stage(add=("touch",), pairs=("touch-text",))
    return scenario.model_copy(update={"name": "longer", "stages": (*scenario.stages, third)})


def session(
    scenario: Scenario, dataset: Dataset, *plugins: Plugin, memory: int | None = None
) -> Session:
    named = {f"{number}": plugin for number, plugin in enumerate(plugins)}
    kept = None if memory is None else MemorySettings(items=memory)
    strategy = Strategy(name="plugins", memory=kept)
    return open_session(Specification(opened(scenario, dataset.card), strategy), dataset, named)


def learned(
    scenario: Scenario, dataset: Dataset, *plugins: Plugin, stages: int = 2, memory=None
) -> Session:
    begun = session(scenario, dataset, *plugins, memory=memory)
    for stage in range(stages):
        begun.learn(stage)
    return begun


def ranks(session: Session, *names: str) -> dict[tuple[str, str, tuple[str, str]], list[float]]:
    """What the last stage's evaluations found, query by query."""
    return {
        (evaluation.split, str(found.pair), direction): order.tolist()
        for evaluation in session.evaluations
        for found in evaluation.pairs
        for direction, order in found.ranks.items()
        if str(found.pair) in names
    }


class Watcher(Plugin):
    """Calls a function after each step of the second stage."""

    def __init__(self, look: Callable[[Learner], None]) -> None:
        super().__init__()
        self.look = look

    def after_backward(self, strategy, *args, **kwargs):
        if strategy.stage == 1:
            self.look(strategy)


def test_before_its_first_step_a_pair_sees_the_bare_towers_bit_for_bit(scenario, dataset):
    steps = []

    def look(learner: Learner) -> None:
        own = learner.embedded.own
        steps.append(
            all(
                torch.equal(view.embedding, learner.embedded[name].embedding)
                for views in own.values()
                for name, view in views.items()
            )
        )
        assert {str(p): sorted(views) for p, views in own.items()} == {
            "audio-text": ["audio"],
            "text-video": ["video"],
        }

    still = scenario.space.model_copy(update={"feature_dropout": 0.0})
    learned(scenario.model_copy(update={"space": still}), dataset, PairLora(), Watcher(look))
    assert steps == [True] + [False] * 11


def test_every_adapter_and_the_new_tower_get_gradients_and_nothing_else_does(scenario, dataset):
    found: list[dict[str, bool]] = []

    def look(learner: Learner) -> None:
        found.append(
            {
                name: value.grad is not None and bool(value.grad.any())
                for name, value in learner.parameters().items()
            }
        )

    learned(scenario, dataset, PairLora(rank=2), Watcher(look))
    adapters = {name for name in found[0] if "lora_" in name}
    # Two layers of each of the two old towers, A and B.
    assert len(adapters) == 2 * 2 * 2
    for step, gradients in enumerate(found):
        having = {name for name, has in gradients.items() if has}
        new = {name for name in having if ".text." in name}
        # While B is zero, nothing reaches A.
        expected = adapters if step else {name for name in adapters if "lora_B" in name}
        assert having == expected | new
        assert new


def test_what_was_there_before_stays_bit_for_bit_and_so_do_old_pairs(
    longer, dataset, values, contained
):
    begun = session(longer, dataset, PairLora())
    begun.learn(0)
    first = values(begun.history), ranks(begun, "audio-video")
    begun.learn(1)
    assert contained(first[0], values(begun.history))
    assert ranks(begun, "audio-video") == first[1]
    names = ("audio-video", "audio-text", "text-video")
    second = values(begun.history), ranks(begun, *names), begun.plugins["0"].state()
    second = (*second[:2], {name: value.clone() for name, value in second[2].items()})
    begun.learn(2)
    assert contained(second[0], values(begun.history))
    assert ranks(begun, *names) == second[1]
    assert contained(second[2], begun.plugins["0"].state())
    owned = {key.split("/")[1] for key in begun.plugins["0"].state() if key.startswith("own/")}
    assert owned == {"audio-text", "text-video", "text-touch"}


def test_a_new_pair_is_learned_better_than_with_frozen_towers_alone(scenario, dataset):
    longer = scenario.training.model_copy(update={"steps": 40})
    scenario = scenario.model_copy(update={"training": longer})

    def recall(plugin: Plugin) -> float:
        history = train(scenario, dataset, plugins=[plugin], device="cpu")
        assert history.recall("audio-video") == history.recall("audio-video", stage=1)
        return history.recall("video-text") + history.recall("audio-text")

    assert recall(PairLora()) > 1.5 * recall(Freeze())


@pytest.mark.parametrize("idle", [PairLora(rate=0.0), PairLora(alpha=0.0)], ids=["rate", "alpha"])
def test_adapters_that_do_not_learn_or_count_nothing_are_none(idle, scenario, dataset, values):
    """Where no features are hidden from what learns, and no gradient shortens another."""
    space = scenario.space.model_copy(update={"feature_dropout": 0.0})
    free = scenario.training.model_copy(update={"clip_norm": 0.0})
    scenario = scenario.model_copy(update={"space": space, "training": free})
    frozen = learned(scenario, dataset, Freeze())
    begun = learned(scenario, dataset, idle)
    assert begun.learner.own_towers
    after, expected = values(begun.history), values(frozen.history)
    for name, value in after.items():
        torch.testing.assert_close(value, expected[name])


def test_a_pair_that_is_trained_again_stays_as_it_is(scenario, dataset):
    again = Stage(add=("text",), pairs=("video-text", "video-audio"))
    scenario = scenario.model_copy(update={"stages": (scenario.stages[0], again)})
    begun = session(scenario, dataset, PairLora())
    begun.learn(0)
    before = ranks(begun, "audio-video")
    begun.learn(1)
    assert ranks(begun, "audio-video") == before
    assert begun.learner.own_towers.keys() == {pair("text", "video")}


def test_two_towers_that_were_both_there_are_both_adapted(scenario, dataset):
    third = Stage(add=("touch",), pairs=("touch-audio", "video-text"))
    stages = (scenario.stages[0], Stage(add=("text",), pairs=("audio-text",)), third)
    begun = learned(scenario.model_copy(update={"stages": stages}), dataset, PairLora(), stages=3)
    own = {str(p): set(towers) for p, towers in begun.learner.own_towers.items()}
    assert own["text-video"] == {"text", "video"}
    assert own["audio-touch"] == {"audio"}


def test_a_stage_without_steps_and_towers_without_layers_get_no_adapters(
    scenario, dataset, values, same
):
    first, second = scenario.stages
    still = scenario.model_copy(update={"stages": (first, second.model_copy(update={"steps": 0}))})
    begun = learned(still, dataset, PairLora())
    assert not begun.learner.own_towers

    class Plain(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.map = nn.Parameter(torch.eye(size, 16))

        def forward(self, values: Tensor) -> Tensor:
            return values @ self.map

    towers = {"video": Plain(8), "audio": Plain(7)}
    history = train(scenario, dataset, plugins=[PairLora()], towers=towers, device="cpu")
    frozen = train(scenario, dataset, plugins=[Freeze()], towers=towers, device="cpu")
    assert same(values(history), values(frozen))


def test_remembered_items_are_trained_beside_it(longer, dataset):
    begun = learned(longer, dataset, PairLora(), Replay(rows=8), stages=3, memory=24)
    assert begun.history.recall("audio-video") == begun.history.recall("audio-video", stage=1)
    assert begun.history.recall("text-video") == begun.history.recall("text-video", stage=2)


def test_a_run_counts_the_adapters_bytes_and_opens_with_the_bare_towers(
    scenario, dataset, tmp_path, values, contained
):
    strategy = Strategy(name="lora", plugins={"pair_lora": {"rank": 2}})
    run(scenario, strategy, dataset, tmp_path, device="cpu")
    (cost,) = tmp_path.rglob("cost.json")
    # fc and gate of video (8 -> 16 -> 16) and audio (7 -> 16 -> 16) at rank 2, and alpha.
    numbers = 2 * (8 + 16 + 16 + 16) + 2 * (7 + 16 + 16 + 16) + 1
    assert json.loads(cost.read_text())["memory_bytes"] == 4 * numbers
    space = open_run(cost.parent)
    before = learned(scenario, dataset, PairLora(rank=2), stages=1)
    kept = {k: v for k, v in space.state_dict().items() if "text" not in k and "video" in k}
    assert contained(kept, values(before.history))


def test_the_class_says_what_to_install_as_well(monkeypatch):
    monkeypatch.delitem(sys.modules, "continual_mm.plugins.pair_lora")
    monkeypatch.delitem(vars(cm), "PairLora", raising=False)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match="PairLora: peft is not installed; pip install"):
        _ = cm.PairLora
    with pytest.raises(InputError, match=r"peft is not installed; pip install"):
        defaults("pair_lora")


def test_without_peft_a_run_is_refused_before_anything_is_trained(tmp_path):
    code = """
import sys
sys.modules["peft"] = None
from continual_mm.cli.app import main
main(["run", "av_vt", "--strategy", "naive", "--strategy", "pair_lora", "--out", sys.argv[1]])
"""
    command = [sys.executable, "-c", code, str(tmp_path / "runs")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr == (
        "continual-mm: strategy 'pair_lora', [pair_lora]: peft is not installed; "
        "pip install 'continual-mm[lora]'\n"
    )
    assert not (tmp_path / "runs").exists()
