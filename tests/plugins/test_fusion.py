"""Strategies on a space whose modalities share a transformer."""

import pytest
import torch

from continual_mm.definitions.scenario import SpaceSettings, Stage, Strategy
from continual_mm.plugins.freeze import Freeze
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.registry import BUILT_IN, build
from continual_mm.plugins.slow import Slow
from continual_mm.system.errors import InputError

SPACE = SpaceSettings(kind="fusion", dim=16, token_width=8, heads=2, feature_dropout=0.0)
STAGES = (
    Stage(add=("video", "audio")),
    Stage(add=("text",)),
    Stage(add=("depth",), pairs=("depth-text",)),
)
OWN = {"rows": 16}
SMALL = {
    "distill": {"current": 10.0, "rows": 16},
    "ewc": {"batches": 4, "rows": 8},
    "mas": {"batches": 2, "rows": 8},
    "nullspace": {"batches": 4, "rows": 20},
    "partners": {"items": 30},
    "realign": {"steps": 3, "rows": 16},
    "si": {"weight": 10.0},
    **dict.fromkeys(("agem", "relational", "replay", "row_kl", "transport"), OWN),
    "watch": {"stop_at": 1e-6, "every": 4},
}
REFUSED = {
    "merge": "share a transformer",
    "prototypes": "needs centroids",
}
FOR_LABELS = {"mmlora"}
WITH_REPLAY = {"rest"}
EXACT = {"freeze", "pair_lora", "expand"}
"""Those that keep everything learned bit for bit."""


@pytest.fixture(scope="module")
def scenario(scenario):
    """Video and audio, then text with both, then depth with text."""
    return scenario.model_copy(update={"space": SPACE, "stages": STAGES})


def plugins(name):
    tables = {"replay": OWN} if name in WITH_REPLAY else {}
    return [*build(Strategy(name=name, plugins={**tables, name: SMALL.get(name, {})})).values()]


def old_vectors(learner, names=("video", "audio")):
    """What items of the first two modalities are compared by, alone and together."""
    items = learner.validation_items
    batch = items.block((torch.arange(20),))
    training = learner.space.training
    with torch.no_grad():
        embedded = learner.space.eval()(batch.features, batch.lengths)
        places = {name: batch.positions(name, torch.arange(20)) for name in names}
        together = learner.space.fused(names, embedded, places)
    learner.space.train(training)
    return {"together": together, **{name: embedded[name].embedding for name in names}}


@pytest.mark.parametrize("name", sorted(BUILT_IN.keys() - REFUSED.keys() - FOR_LABELS))
def test_a_strategy_changes_training_and_forgets_nothing_if_it_promises_so(
    name, begun, values, same
):
    def learned(*given):
        learner, streams = begun(*given, items=40)
        learner.learn(streams, 0)
        before = old_vectors(learner)
        for stage in (1, 2):
            learner.learn(streams, stage)
        after = old_vectors(learner)
        return learner, all(torch.equal(before[each], after[each]) for each in before)

    naive, kept = learned(*(plugins("replay") if name in WITH_REPLAY else ()))
    assert not kept
    learner, kept = learned(*plugins(name))
    assert not same(values(naive), values(learner))
    assert kept == (name in EXACT)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_in_one_line(name, trained):
    with pytest.raises((InputError, ValueError), match=REFUSED[name]) as refused:
        trained(*plugins(name), stages=3)
    assert "\n" not in str(refused.value)


class Seen(Plugin):
    """Notes which loss terms there were."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def before_backward(self, strategy, *args, **kwargs):
        self.names |= strategy.terms.keys()


def test_joint_training_has_terms_of_several_modalities(begun):
    learner, streams = begun(seen := Seen(), joint=True)
    learner.learn(streams, 0)
    pairs = {"audio-video", "audio-text", "text-video", "depth-text"}
    assert seen.names == {f"contrast/{name}" for name in (*pairs, "text-audio+video")}


def test_what_arrives_is_trained_with_several_old_modalities_on_a_frozen_transformer(begun):
    learner, streams = begun(Freeze(), seen := Seen())
    learner.learn(streams, 0)
    assert seen.names == {"contrast/audio-video"}
    learner.learn(streams, 1)
    assert "contrast/text-audio+video" in seen.names
    taking = {name for name, each in learner.space.named_parameters() if each.requires_grad}
    assert taking
    assert all(name.startswith("encoders.text.") for name in taking)


def test_adapters_of_a_pair_are_on_the_transformer_too(trained):
    learner = trained(*plugins("pair_lora"))
    adapted = {name for name in learner.parameters() if "transformer" in name and "own/" in name}
    assert any("audio-text/audio" in name for name in adapted)
    assert any("text-video/video" in name for name in adapted)


def test_the_transformer_is_slow_with_the_old_towers(begun):
    learner, streams = begun(Slow(ratio=0.5))
    for stage in (0, 1):
        learner.learn(streams, stage)
    shared = {name for name in learner.parameters() if name.startswith("transformer.")}
    assert shared
    assert {learner.lr_scale[name] for name in shared} == {0.5}


@pytest.mark.parametrize("name", ["distill", "expand", "pair_lora", "replay"])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(name, ends, same):
    whole, inside, between = ends(
        lambda: plugins(name), items=40 if BUILT_IN[name].needs_memory else None
    )
    assert same(whole, inside)
    assert same(whole, between)
