"""Joint LoRA: pairs that are trained together share towers, and each has adapters of its own."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from continual_mm.data.dataset import Dataset, Split
from continual_mm.definitions.modality import pair
from continual_mm.definitions.scenario import Scenario, SpaceSettings, Stage, Strategy, Training
from continual_mm.learning.objective import contrast
from continual_mm.plugins.adapters import merge
from continual_mm.plugins.freeze import Freeze
from continual_mm.plugins.joint_lora import JointLora
from continual_mm.plugins.plugin import Plugin
from continual_mm.runs.run import open_run, run, train

PAIRS = tuple(pair(*each) for each in (("audio", "text"), ("audio", "video"), ("text", "video")))
SIZES = {"video": 8, "audio": 7, "text": 5}


@pytest.fixture(scope="module")
def at_once(scenario, changed):
    """One stage of all three pairs."""
    return changed(scenario, items="shared", stages=(Stage(add=("video", "audio", "text")),))


def by_pair(learner):
    """Pair -> its adapters by name."""
    found = {}
    for name, value in learner.parameters().items():
        if name.startswith("own/"):
            found.setdefault(pair(*name.split("/")[1].split("-")), {})[name] = value
    return found


def test_before_the_first_step_every_pair_sees_the_bare_towers_bit_for_bit(
    at_once, looking, trained
):
    steps = []

    def look(learner):
        own = learner.embedded.own
        assert {each: set(views) for each, views in own.items()} == {
            each: {each.first, each.second} for each in PAIRS
        }
        steps.append(
            all(
                torch.equal(view.embedding, learner.embedded[name].embedding)
                for views in own.values()
                for name, view in views.items()
            )
        )

    trained(JointLora(), looking(0, look), scenario=at_once, stages=1)
    assert steps == [True] + [False] * 11


@pytest.mark.parametrize("bare", [0.0, 1.0])
def test_one_backward_pass_reaches_the_adapters_of_every_pair_and_the_shared_towers(
    bare, at_once, trained
):
    """Two factors in each of two layers of two towers are 8 tensors of each pair, all 24 of them.

    While B is zero nothing reaches A. (Switching one model's adapters leaves all but the last
    pair's without a gradient.)
    """
    counts, towers = [], []

    class Gradients(Plugin):
        def after_backward(self, strategy, *args, **kwargs):
            counts.append(
                {
                    str(each): sum(v.grad is not None and bool(v.grad.any()) for v in own.values())
                    for each, own in by_pair(strategy).items()
                }
            )
            encoders = strategy.space.encoders.parameters()
            towers.append(all(bool(value.grad.any()) for value in encoders))

    learner = trained(JointLora(rank=2, bare=bare), Gradients(), scenario=at_once, stages=1)
    assert {str(each): len(own) for each, own in by_pair(learner).items()} == counts[-1]
    assert counts[0] == dict.fromkeys(map(str, PAIRS), 4)
    assert counts[1:] == [dict.fromkeys(map(str, PAIRS), 8)] * 11
    assert all(towers)


def test_the_shared_towers_get_the_sum_of_what_the_pairs_ask_of_them(at_once, begun):
    """As if each pair had trained a copy of them by itself."""
    found = {}

    class Apart(Plugin):
        def before_backward(self, strategy, *args, **kwargs):
            if strategy.step != 3:
                return
            shared = list(strategy.space.encoders.parameters())
            terms = contrast(
                strategy.space, strategy.batch, strategy.embedded, strategy.pairs, strategy.current
            )
            assert {name.removeprefix("contrast/") for name in terms} == set(map(str, PAIRS))
            each = [
                torch.autograd.grad(term, shared, retain_graph=True, allow_unused=True)
                for term in terms.values()
            ]
            found["expected"] = [
                sum(part for part in parts if part is not None) for parts in zip(*each, strict=True)
            ]

        def after_backward(self, strategy, *args, **kwargs):
            if strategy.step == 3:
                found["all"] = [v.grad.clone() for v in strategy.space.encoders.parameters()]

    learner, streams = begun(
        JointLora(bare=0.0), Apart(), scenario=at_once, clusters=0, reconstruction_weight=0.0
    )
    learner.learn(streams, 0)
    torch.testing.assert_close(found["all"], found["expected"])


def test_the_bare_towers_learn_by_a_term_of_their_own(at_once, looking, trained, dataset):
    terms = set()
    look = looking(0, lambda learner: terms.update(learner.terms))

    def recall(learner):
        rows = dataset.rows_of(Split.TEST)
        sides = [
            learner.space.encode(n, dataset.columns[n].values[rows], standardised=True)
            for n in ("video", "text")
        ]
        similarity = sides[0] @ sides[1].T
        return float((similarity.argmax(1) == torch.arange(len(rows))).float().mean())

    longer = {"scenario": at_once, "stages": 1, "steps": 40}
    kept = recall(trained(JointLora(), look, **longer))
    assert {f"bare/contrast/{each}" for each in PAIRS} <= terms
    terms.clear()
    left = recall(trained(JointLora(bare=0.0, rank=5, alpha=50.0), look, **longer))
    assert not any(name.startswith("bare/") for name in terms)
    assert kept > left + 0.1


def test_a_small_space_holds_what_each_pair_has_alone_only_with_adapters():
    """Three numbers of each pair in eight dimensions, where one space must hold all nine."""
    rng = np.random.default_rng(0)
    own = {each: rng.standard_normal((400, 3)) for each in PAIRS}
    arrays = {
        name: np.concatenate([own[each] for each in PAIRS if name in each], axis=1)
        for name in SIZES
    }
    dataset = Dataset.from_arrays(arrays, split=np.repeat([0, 1, 2], [320, 40, 40]))
    plan = Scenario(
        name="small",
        space=SpaceSettings(dim=8, clusters=0, feature_dropout=0.0, reconstruction_weight=0.0),
        training=Training(steps=50, batch_size=64, learning_rate=1e-2),
        stages=(Stage(add=tuple(SIZES)),),
    )
    shared, adapted = (
        train(plan, dataset, plugins=plugins, device="cpu") for plugins in ([], [JointLora()])
    )
    for each in PAIRS:
        assert adapted.recall(str(each)) > shared.recall(str(each)) + 0.3


def test_a_pair_that_is_alone_and_arrives_whole_gets_none_and_older_ones_go_on(
    scenario, changed, trained
):
    more = Stage(pairs=("video-audio", "depth-audio"))
    plan = changed(scenario, stages=(*scenario.stages, more))
    first = trained(JointLora(), scenario=plan, stages=1)
    assert not first.own_towers
    third = trained(JointLora(), scenario=plan, stages=3)
    assert set(third.own_towers) == {
        pair("text", "video"), *(pair("depth", name) for name in ("audio", "text", "video"))
    }  # fmt: skip
    assert all(set(own) == {each.first, each.second} for each, own in third.own_towers.items())
    before = {
        name: v.detach().clone() for name, v in by_pair(third)[pair("audio", "depth")].items()
    }
    fourth = trained(JointLora(), scenario=plan, stages=4)
    after = by_pair(fourth)[pair("audio", "depth")]
    assert not any(torch.equal(value, before[name]) for name, value in after.items())
    assert pair("audio", "video") in fourth.own_towers


def test_beside_freezing_older_pairs_stay_exactly_as_they_are(at_once, changed, dataset):
    later = Stage(add=("depth",), pairs=("depth-video",))
    plan = changed(at_once, stages=(*at_once.stages, later))
    history = train(plan, dataset, plugins=[Freeze(), JointLora()], device="cpu")
    for each in map(str, PAIRS):
        scores = [s for s in history.scores if (s.pair, s.split) == (each, "test")]
        first, second = (
            [(s.direction, s.mean_reciprocal_rank) for s in scores if s.stage == stage]
            for stage in (1, 2)
        )
        assert first == second


def test_joint_and_cumulative_training_take_it(scenario, trained):
    bounded = {"scenario": scenario, "items": None}
    joint = trained(JointLora(), stages=1, joint=True, **bounded)
    every = {pair("audio", "video"), pair("text", "video")}
    every |= {pair("depth", name) for name in ("audio", "text", "video")}
    assert set(joint.own_towers) == every
    assert set(trained(JointLora(), cumulative=True, **bounded).own_towers) == {
        pair("audio", "video"), pair("text", "video")
    }  # fmt: skip


@pytest.fixture(scope="module")
def with_sound():
    """Items whose sound is a spectrogram, which convolutions read."""
    rng = np.random.default_rng(2)
    common = rng.standard_normal((60, 5))
    arrays = {
        "video": common @ rng.standard_normal((5, 8)),
        "audio": (common @ rng.standard_normal((5, 60))).reshape(60, 10, 6),
        "text": common @ rng.standard_normal((5, 5)),
    }
    split = np.repeat([0, 1, 2], [30, 10, 20])
    return Dataset.from_arrays(arrays, kinds={"audio": "spectrogram"}, split=split)


def test_merged_into_linear_and_convolutional_layers_adapters_give_what_they_gave(
    at_once, trained, with_sound
):
    learner = trained(JointLora(), scenario=at_once, dataset=with_sound, stages=1)
    learner.space.eval()
    for each, own in learner.own_towers.items():
        for name, tower in own.items():
            values = torch.from_numpy(with_sound.columns[name].values[30:])
            lengths = torch.full((30,), 10) if name == "audio" else None
            adapters = {
                key.split("/", 3)[3]: value.detach()
                for key, value in by_pair(learner)[each].items()
                if key.split("/")[2] == name
            }
            plain = deepcopy(learner.space.tower(name))
            bare = plain(values, lengths)[1]
            merge(plain, adapters, scale=2.0)
            with torch.no_grad():
                torch.testing.assert_close(
                    plain(values, lengths)[1], tower(values, lengths)[1], rtol=1e-4, atol=1e-5
                )
            assert not torch.allclose(bare, plain(values, lengths)[1], rtol=1e-3, atol=1e-4)


def test_a_run_is_opened_as_each_pair_was_scored_and_lost_ranks_are_made_again(
    at_once, with_sound, tmp_path
):
    strategy = Strategy(name="lora", joint=True, plugins={"joint_lora": {"rank": 3}})
    run(at_once, strategy, with_sound, tmp_path, device="cpu", board=False)
    folder = tmp_path / "small" / "lora" / "seed-0"
    ranks = folder / "ranks" / "stage-1.npz"
    scored = dict(np.load(ranks))
    rows = with_sound.rows_of(Split.TEST)
    for each in PAIRS:
        space = open_run(folder, pair=str(each))
        first, second = (
            space.encode(n, with_sound.columns[n].values[rows], standardised=True)
            for n in (each.first, each.second)
        )
        similarity = first @ second.T
        found = (similarity > similarity.diagonal()[:, None]).sum(1).numpy()
        assert np.array_equal(found, scored[f"test/{each}/{each.first} to {each.second}"])
    ranks.unlink()
    run(at_once, strategy, with_sound, tmp_path, device="cpu", board=False)
    again = dict(np.load(ranks))
    assert scored.keys() == again.keys()
    for name, value in scored.items():
        assert np.array_equal(value, again[name]), name
