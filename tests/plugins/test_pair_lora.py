"""Pair LoRA: every new pair learns adapters of its own, and nothing that was there changes."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

import continual_mm as cm
from continual_mm.definitions.modality import Kind, Modality, pair
from continual_mm.definitions.scenario import SpaceSettings, Stage, Strategy
from continual_mm.plugins.adapters import adaptable, adapted, merge
from continual_mm.plugins.freeze import Freeze
from continual_mm.plugins.pair_lora import PairLora
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.registry import defaults
from continual_mm.runs.run import open_run, run, train
from continual_mm.runs.session import open_session
from continual_mm.runs.specification import Specification, opened
from continual_mm.space.space import default_encoder
from continual_mm.space.towers import Adapted
from continual_mm.system.errors import InputError

SETTINGS = SpaceSettings(dim=12, clusters=0)
SHAPES = {Kind.VECTOR: (9,), Kind.TOKENS: (6, 9), Kind.SPECTROGRAM: (16, 10)}


class Attentive(nn.Module):
    """torch's own transformer, which has a fast path where it need not differentiate."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, values):
        return self.layers(values).mean(1)


def tower(kind):
    torch.manual_seed(0)
    return default_encoder(Modality("m", kind, SHAPES[kind]), SETTINGS).eval()


def published():
    torch.manual_seed(0)
    settings = SpaceSettings(mode="reference", dim=12, clusters=0, width=4, reconstruction_width=4)
    encoder = default_encoder(Modality("m", Kind.SPECTROGRAM, (16, 40)), settings)
    return encoder.eval()


def output(tower, values, *, timed):
    lengths = torch.tensor([values.shape[1], 5, 3]) if timed else None
    return tower(values, lengths)[1]


def as_if_trained(tower):
    """As if its adapters had learned something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in tower.named_parameters():
            if "lora_B" in name:
                value.copy_(0.3 * torch.randn(value.shape, generator=generator))
    return tower


def adapters_of(tower):
    return {name: value for name, value in tower.named_parameters() if value.requires_grad}


@pytest.mark.parametrize("kind", SHAPES)
def test_at_first_it_gives_the_same_bits_and_later_others(kind):
    first, values = tower(kind), torch.randn(3, *SHAPES[kind])
    second = adapted(first, rank=2, scale=2.0, seed=0)
    timed = kind is not Kind.VECTOR
    before = output(first, values, timed=timed)
    assert torch.equal(before, output(second, values, timed=timed))
    assert not torch.allclose(before, output(as_if_trained(second), values, timed=timed))
    assert torch.equal(before, output(first, values, timed=timed))


def test_weights_are_shared_and_only_adapters_take_a_gradient():
    first = tower(Kind.TOKENS)
    names = set(first.state_dict())
    second = adapted(first, rank=2, scale=2.0, seed=0)
    shared = {id(value) for value in first.parameters()}
    mine = adapters_of(second)
    assert set(first.state_dict()) == names
    assert {id(p) for p in second.parameters()} - {id(p) for p in mine.values()} == shared
    assert all("lora_" in name for name in mine)
    # Rank 2 on words (9 -> 12), fc and gate (12 -> 12): 2 (9 + 12) + 2 * 2 (12 + 12) numbers.
    assert sum(value.numel() for value in mine.values()) == 2 * (9 + 12) + 2 * 2 * (12 + 12)


@pytest.mark.parametrize("layer", [nn.Linear(5, 4), nn.Conv1d(5, 4, 3, stride=2, padding=1)])
def test_an_adapter_is_its_scale_times_its_product(layer):
    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer.eval()

        def forward(self, values):
            return self.layer(values)

    first = One()
    second = as_if_trained(adapted(first, rank=2, scale=3.0, seed=0))
    down, up = (value.detach() for value in adapters_of(second).values())
    values = torch.randn(3, 5) if isinstance(layer, nn.Linear) else torch.randn(3, 5, 7)
    change = 3 * torch.tensordot(up.reshape(4, 2), down, dims=1)
    with torch.no_grad():
        expected = first(values)
        if isinstance(layer, nn.Linear):
            expected = expected + values @ change.T
        else:
            expected = expected + nn.functional.conv1d(values, change, stride=2, padding=1)
        torch.testing.assert_close(second(values), expected)


def test_no_adapter_has_a_higher_rank_than_the_weight_that_it_is_added_to():
    first = tower(Kind.VECTOR)
    whole = {name: tuple(value.shape) for name, value in first.named_parameters()}
    mine = adapters_of(as_if_trained(adapted(first, rank=10, scale=1.0, seed=0)))
    for name, value in mine.items():
        layer, _, factor = name.partition(".lora_")
        out, inputs = whole[f"{layer}.weight"]
        rank = min(10, out, inputs)
        assert tuple(value.shape) == ((rank, inputs) if factor.startswith("A") else (out, rank))
    assert {value.shape[0] for name, value in mine.items() if ".lora_A." in name} == {9, 10}


@pytest.mark.parametrize("make", [lambda: tower(Kind.SPECTROGRAM), published])
def test_merged_adapters_give_what_unmerged_ones_give(make):
    first, features = make(), 10 if make is not published else 40
    values = torch.randn(3, 16, features)
    second = as_if_trained(adapted(first, rank=3, scale=2.0, seed=0))
    expected = output(second, values, timed=True).detach()
    mine = {name: value.detach() for name, value in adapters_of(second).items()}
    names, before = set(first.state_dict()), output(first, values, timed=True)
    merge(first, mine, scale=2.0)
    assert set(first.state_dict()) == names
    after = output(first, values, timed=True)
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(after, before, rtol=1e-4, atol=1e-5)


def test_what_is_not_called_as_a_layer_gets_no_adapter():
    module = nn.ModuleDict(
        {
            "attention": nn.MultiheadAttention(8, 2),
            "grouped": nn.Conv1d(4, 4, 3, groups=4),
            "norm": nn.LayerNorm(4),
            "linear": nn.Linear(4, 4),
        }
    )
    assert adaptable(module) == ["linear"]
    assert adapted(nn.LayerNorm(4), rank=2, scale=2.0, seed=0) is None


def test_a_transformer_of_torch_learns_through_its_adapters_despite_its_fast_path():
    modality = Modality("m", Kind.TOKENS, (6, 8))
    first = Adapted(Attentive(), modality, SETTINGS).eval().requires_grad_(False)
    second = adapted(first, rank=2, scale=2.0, seed=0)
    values = torch.randn(3, 6, 8)
    output(second, values, timed=True).sum().backward()
    assert all(value.grad is not None for value in adapters_of(second).values())
    with torch.no_grad():
        before = output(first, values, timed=True)
        assert not torch.allclose(before, output(as_if_trained(second), values, timed=True))


def test_first_adapters_follow_from_the_seed_and_leave_the_global_generator_alone():
    first = tower(Kind.VECTOR)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, same, other = (adapted(first, rank=2, scale=2.0, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(state, torch.get_rng_state())
    for name, value in adapters_of(one).items():
        assert torch.equal(value, adapters_of(same)[name])
        assert torch.equal(value, adapters_of(other)[name]) == ("lora_B" in name)


@pytest.fixture(scope="module")
def scenario(scenario, changed):
    """Two stages; the new modality forms two pairs."""
    stages = (scenario.stages[0], Stage(add=("text",), pairs=("video-text", "audio-text")))
    return changed(scenario, items="shared", feature_dropout=0.1, stages=stages)


def session(scenario, dataset):
    specification = Specification(opened(scenario, dataset.card), Strategy(name="plugins"))
    return open_session(specification, dataset, {"0": PairLora()})


def ranks(session, *names):
    """What the last stage's evaluations found, query by query."""
    return {
        (evaluation.split, str(found.pair), direction): order.tolist()
        for evaluation in session.evaluations
        for found in evaluation.pairs
        for direction, order in found.ranks.items()
        if str(found.pair) in names
    }


def test_before_its_first_step_a_pair_sees_the_bare_towers_bit_for_bit(looking, trained):
    steps = []

    def look(learner):
        seen, own = learner.embedded, learner.embedded.own
        views = [(name, view) for views in own.values() for name, view in views.items()]
        steps.append(all(torch.equal(v.embedding, seen[name].embedding) for name, v in views))
        names = {str(pair): sorted(views) for pair, views in own.items()}
        assert names == {"audio-text": ["audio"], "text-video": ["video"]}

    trained(PairLora(), looking(1, look), feature_dropout=0.0)
    assert steps == [True] + [False] * 11


def test_every_adapter_and_the_new_tower_get_gradients_and_nothing_else_does(trained):
    found = []

    class Gradients(Plugin):
        def after_backward(self, strategy, *args, **kwargs):
            if strategy.stage == 1:
                slopes = {name: value.grad for name, value in strategy.parameters().items()}
                found.append(
                    {k for k, slope in slopes.items() if slope is not None and slope.any()}
                )

    learner = trained(PairLora(rank=2), Gradients())
    adapters = {name for name in learner.parameters() if "lora_" in name}
    # Two layers of each of the two old towers, A and B.
    assert len(adapters) == 2 * 2 * 2
    for step, having in enumerate(found):
        new = {name for name in having if ".text." in name}
        # While B is zero, nothing reaches A.
        expected = adapters if step else {name for name in adapters if "lora_B" in name}
        assert having == expected | new
        assert new


def test_what_was_there_before_stays_bit_for_bit_and_so_do_old_pairs(
    scenario, changed, dataset, values, contained
):
    third = Stage(add=("depth",), pairs=("depth-text",))
    begun = session(changed(scenario, stages=(*scenario.stages, third)), dataset)
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
    assert owned == {"audio-text", "text-video", "depth-text"}


def test_a_new_pair_is_learned_better_than_with_frozen_towers_alone(scenario, changed, dataset):
    def recall(plugin):
        longer = changed(scenario, steps=40)
        history = train(longer, dataset, plugins=[plugin], device="cpu")
        assert history.recall("audio-video") == history.recall("audio-video", stage=1)
        return history.recall("video-text") + history.recall("audio-text")

    assert recall(PairLora()) > 1.5 * recall(Freeze())


@pytest.mark.parametrize("idle", [PairLora(rate=0.0), PairLora(alpha=0.0)], ids=["rate", "alpha"])
def test_adapters_that_do_not_learn_or_count_nothing_are_none(idle, values, trained):
    """Where no features are hidden from what learns, and no gradient shortens another."""
    free = {"feature_dropout": 0.0, "clip_norm": 0.0}
    learner = trained(idle, **free)
    assert learner.own_towers
    after, expected = values(learner), values(trained(Freeze(), **free))
    for name, value in after.items():
        torch.testing.assert_close(value, expected[name])


def test_a_pair_that_is_trained_again_stays_as_it_is(scenario, changed, dataset):
    again = Stage(add=("text",), pairs=("video-text", "video-audio"))
    begun = session(changed(scenario, stages=(scenario.stages[0], again)), dataset)
    begun.learn(0)
    before = ranks(begun, "audio-video")
    begun.learn(1)
    assert ranks(begun, "audio-video") == before
    assert begun.learner.own_towers.keys() == {pair("text", "video")}


def test_two_towers_that_were_both_there_are_both_adapted(scenario, changed, trained):
    third = Stage(add=("depth",), pairs=("audio-depth", "video-text"))
    stages = (scenario.stages[0], Stage(add=("text",), pairs=("audio-text",)), third)
    learner = trained(PairLora(), scenario=changed(scenario, stages=stages), stages=3)
    own = {str(p): set(towers) for p, towers in learner.own_towers.items()}
    assert own["text-video"] == {"text", "video"}
    assert own["audio-depth"] == {"audio"}


def test_a_stage_without_steps_and_towers_without_layers_get_no_adapters(
    scenario, dataset, values, same, trained
):
    first, second = scenario.stages
    still = scenario.model_copy(update={"stages": (first, second.model_copy(update={"steps": 0}))})
    assert not trained(PairLora(), scenario=still).own_towers

    class Plain(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.map = nn.Parameter(torch.eye(size, 16))

        def forward(self, values):
            return values @ self.map

    towers = {"video": Plain(8), "audio": Plain(7)}
    history = train(scenario, dataset, plugins=[PairLora()], towers=towers, device="cpu")
    frozen = train(scenario, dataset, plugins=[Freeze()], towers=towers, device="cpu")
    assert same(values(history), values(frozen))


def test_a_run_counts_the_adapters_bytes_and_opens_with_the_bare_towers(
    scenario, dataset, tmp_path, values, contained, trained
):
    strategy = Strategy(name="lora", plugins={"pair_lora": {"rank": 2}})
    run(scenario, strategy, dataset, tmp_path, device="cpu")
    (cost,) = tmp_path.rglob("cost.json")
    # fc and gate of video (8 -> 16 -> 16) and audio (7 -> 16 -> 16) at rank 2, and alpha.
    numbers = 2 * (8 + 16 + 16 + 16) + 2 * (7 + 16 + 16 + 16) + 1
    assert json.loads(cost.read_text())["memory_bytes"] == 4 * numbers
    space = open_run(cost.parent)
    before = trained(PairLora(rank=2), stages=1)
    kept = {k: v for k, v in space.state_dict().items() if "text" not in k and "video" in k}
    assert contained(kept, values(before))


def test_the_class_says_what_to_install_as_well(monkeypatch):
    for name in ("pair_lora", "adapters"):
        monkeypatch.delitem(sys.modules, f"continual_mm.plugins.{name}")
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
