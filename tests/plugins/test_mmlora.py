"""MMLoRA: modalities learn classes alone, then adapters by the mean of their logits."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import continual_mm as cm
from continual_mm.data.dataset import Dataset
from continual_mm.definitions.modality import pair
from continual_mm.definitions.scenario import Protocol, Stage, Strategy
from continual_mm.plugins.mmlora import MMLora
from continual_mm.plugins.plugin import Plugin
from continual_mm.runs.run import open_run, run, train
from continual_mm.system.errors import InputError

IMAGE, AUDIO = pair("image", "name"), pair("audio", "name")
BOTH = ("image-name", "audio-name")
CLASSES = 4


def items(**changes):
    """Items of four classes, of which an image and a sound show something each, and their names.

    The last four test items are names alone.
    """
    rng = np.random.default_rng(4)
    label = np.concatenate([rng.integers(0, CLASSES, 200), np.arange(CLASSES)])
    split = np.concatenate([np.repeat([0, 1, 2], [120, 20, 60]), np.full(CLASSES, 2)])
    there = np.arange(len(label)) < 200
    given = {
        "arrays": {
            "image": rng.standard_normal((CLASSES, 6))[label] + rng.standard_normal((204, 6)),
            "audio": rng.standard_normal((CLASSES, 5))[label] + rng.standard_normal((204, 5)),
            "name": np.eye(CLASSES)[label],
        },
        "label": label,
        "split": split,
        "present": {"image": there, "audio": there},
        **changes,
    }
    return Dataset.from_arrays(given.pop("arrays"), **given)


@pytest.fixture(scope="module")
def dataset():
    return items()


@pytest.fixture(scope="module")
def scenario(scenario, changed):
    """Image, then sound, each with the names; then both."""
    return changed(
        scenario,
        clusters=0,
        items="shared",
        stages=(
            Stage(add=("image", "name")),
            Stage(add=("audio",), pairs=("audio-name",)),
            Stage(pairs=BOTH),
        ),
    )


def adapters(learner):
    return {name: v for name, v in learner.parameters().items() if name.startswith("own/")}


def expected(learner, dataset):
    """The loss of the step from embeddings of names and items, row by row."""
    space, batch = learner.space, learner.batch
    names = torch.from_numpy(dataset.columns["name"].values[-CLASSES:])
    rows = []
    for row, of in enumerate(batch.index.tolist()):
        seen = []
        for each, name in ((IMAGE, "image"), (AUDIO, "audio")):
            if not bool(batch.present(name)[row]):
                continue
            own = learner.own_towers.get(each, {})
            where = batch.positions(name, torch.tensor([row]))
            value = batch.features[name][where]
            towers = [own.get(one, space.tower(one)) for one in (name, "name")]
            first, second = (
                torch.nn.functional.normalize(tower(x, None)[1], dim=1)
                for tower, x in zip(towers, (value, names), strict=True)
            )
            seen.append(space.logit_scale * first @ second.T)
        if seen:
            rows.append((torch.stack(seen).mean(0)[0], int(dataset.label[of])))
    logits = torch.stack([one for one, _ in rows])
    return cross_entropy(logits, torch.tensor([label for _, label in rows]))


def test_the_last_stage_trains_the_cross_entropy_of_the_mean_of_logits_and_nothing_else(
    dataset, looking, trained
):
    calls = []

    def look(learner):
        assert learner.terms.keys() == {"mean_logits"}
        assert learner.loss is learner.terms["mean_logits"]
        torch.testing.assert_close(learner.loss, expected(learner, dataset))
        calls.append(float(learner.loss))

    trained(MMLora(), looking(2, look), stages=3, items=None)
    assert len(calls) == 12
    assert calls[-1] < calls[0]


def test_items_that_lack_a_modality_are_told_by_the_other(looking, trained):
    there = np.random.default_rng(0).random((2, 204)) < 0.6
    there[:, 200:] = False
    some = items(present={"image": there[0], "audio": there[1]})
    seen = []

    def look(learner):
        torch.testing.assert_close(learner.loss, expected(learner, some))
        seen.append({name: len(rows) for name, rows in learner.batch.rows.items()})

    trained(MMLora(), looking(2, look), stages=3, items=None, dataset=some)
    assert all(one["image"] < 20 and one["audio"] < 20 for one in seen)


def test_it_begins_as_the_ensemble_of_the_single_ones_and_changes_only_adapters(
    dataset, looking, trained, values, same
):
    steps, counts = [], []

    def look(learner):
        own = learner.embedded.own
        assert set(own) == {IMAGE, AUDIO}
        steps.append(
            all(
                torch.equal(view.embedding, learner.embedded[name].embedding)
                for views in own.values()
                for name, view in views.items()
            )
        )

    class Gradients(Plugin):
        def after_backward(self, strategy, *args, **kwargs):
            if strategy.stage == 2:
                having = {n for n, v in strategy.parameters().items() if v.grad is not None}
                assert having == set(adapters(strategy))
                given = [n for n, v in adapters(strategy).items() if v.grad.any()]
                counts.append(
                    [sum(n.startswith(f"own/{one}/") for n in given) for one in (IMAGE, AUDIO)]
                )

    before = trained(MMLora(), stages=2, items=None)
    assert not before.own_towers
    after = trained(MMLora(), looking(2, look), Gradients(), stages=3, items=None)
    assert steps == [True] + [False] * 11
    # Two factors in two layers of two towers each; while B is zero nothing reaches A.
    assert counts == [[4, 4]] + [[8, 8]] * 11
    assert same(values(before), values(after))


def test_each_modality_learns_alone_and_keeps_what_an_earlier_one_has_learned(
    dataset, trained, values, contained
):
    first, second = (trained(MMLora(), stages=n, items=None) for n in (1, 2))
    assert contained(values(first), values(second))
    assert contained(values(trained(stages=1, items=None)), values(second))


def test_rank_0_trains_the_towers_themselves(dataset, trained, values, looking):
    def look(learner):
        torch.testing.assert_close(learner.loss, expected(learner, dataset))

    before = trained(MMLora(rank=0), stages=2, items=None)
    after = trained(MMLora(rank=0), looking(2, look), stages=3, items=None)
    assert not after.own_towers
    moved = {name for name, v in values(after).items() if not torch.equal(v, values(before)[name])}
    assert all(
        any(f".{name}." in one or f".{name}" in one for one in moved)
        for name in ("image", "audio", "name")
    )


def test_what_arrives_in_such_a_stage_is_trained_whole(
    dataset, scenario, changed, looking, trained
):
    def look(learner):
        torch.testing.assert_close(learner.loss, expected(learner, dataset))

    at_once = changed(scenario, stages=(Stage(add=("image", "audio", "name"), pairs=BOTH),))
    learner = trained(MMLora(), looking(0, look), scenario=at_once, stages=1, items=None)
    assert not learner.own_towers
    half = (scenario.stages[0], Stage(add=("audio",), pairs=BOTH))
    plan = changed(scenario, stages=half)
    learner = trained(MMLora(), looking(1, look), scenario=plan, items=None)
    assert {each: set(own) for each, own in learner.own_towers.items()} == {
        IMAGE: {"image", "name"}, AUDIO: {"name"}
    }  # fmt: skip


def test_adapters_of_an_earlier_stage_learn_again_and_others_stay(
    dataset, scenario, changed, trained
):
    plan = changed(
        scenario, stages=(*scenario.stages, Stage(pairs=("image-name",)), *scenario.stages[2:])
    )
    found = [
        {
            name: v.detach().clone()
            for name, v in adapters(trained(MMLora(), scenario=plan, stages=n, items=None)).items()
        }
        for n in (3, 4, 5)
    ]
    assert all(torch.equal(v, found[1][name]) for name, v in found[0].items())
    assert not any(torch.equal(v, found[2][name]) for name, v in found[1].items())


def test_a_stage_that_trains_together_is_resumed_to_the_same_bits(
    dataset, scenario, changed, ends, same
):
    stages = (Stage(add=("image", "name", "audio"), pairs=("image-name",)), Stage(pairs=BOTH))
    last = Stage(pairs=BOTH)
    plan = changed(scenario, stages=(*stages, last), feature_dropout=0.2)
    for rank in (2, 0):
        whole, *resumed = ends(lambda rank=rank: [MMLora(rank=rank)], scenario=plan, items=None)
        assert len(resumed) == 2
        for each in resumed:
            assert same(whole, each)


def test_a_run_classifies_better_than_the_first_modality_and_opens_as_it_was_scored(
    dataset, scenario, changed, tmp_path
):
    asked = tuple(
        Protocol(name=name, kind="classes", query=("name",), gallery=gallery)
        for name, gallery in (("both", ("image", "audio")), ("image", ("image",)))
    )
    plan = changed(scenario, steps=40, protocols=asked)
    strategy = Strategy(name="mmlora", plugins={"mmlora": {"rank": 4}})
    history = run(plan, strategy, dataset, tmp_path, device="cpu", board=False)
    found = {(s.name, s.stage): s.measures["accuracy"] for s in history.protocols}
    assert found["both", 3] > found["image", 1]
    rows = dataset.rows_of(2)[:-CLASSES]
    total = 0
    for name in ("image", "audio"):
        space = open_run(tmp_path / "small" / "mmlora" / "seed-0", pair=f"{name}-name")
        items, names = (
            space.encode(one, dataset.columns[one].values[some], standardised=True)
            for one, some in ((name, rows), ("name", slice(-CLASSES, None)))
        )
        total = total + items.double() @ names.double().T
    right = (total.argmax(1).numpy() == dataset.label[rows]).mean()
    assert right == pytest.approx(found["both", 3])


def test_data_without_labels_are_refused_before_anything_is_trained(scenario):
    unlabelled = items(label=None)
    with pytest.raises(InputError, match=r"\[mmlora\]: dataset 'arrays' has no labels; give its"):
        train(scenario, unlabelled, plugins=[MMLora()], device="cpu")


def test_a_modality_that_does_not_name_the_class_is_refused(dataset, scenario):
    arrays = {name: dataset.columns[name].values.copy() for name in ("image", "audio", "name")}
    arrays["name"][:120] += np.random.default_rng(0).standard_normal((120, CLASSES))
    with pytest.raises(InputError, match=r"items of label 0 differ in name; let name be the name"):
        train(scenario, items(arrays=arrays), plugins=[MMLora()], device="cpu")


def test_fewer_than_two_classes_are_refused(scenario):
    with pytest.raises(InputError, match=r"training items with name have 1 labels; give at least"):
        train(scenario, items(label=np.repeat(0, 204)), plugins=[MMLora()], device="cpu")


def test_pairs_of_no_common_modality_are_refused(dataset, scenario, changed):
    plan = changed(scenario, stages=(Stage(add=("image", "audio", "name")),))
    with pytest.raises(InputError, match=r"no modality is in each, to name classes; name pairs of"):
        train(plan, dataset, plugins=[cm.MMLora()], device="cpu")
