"""Consolidation: a finished run's space with fewer numbers, beside the run, which stays."""

import json
from hashlib import sha256

import numpy as np
import pytest
import torch

import continual_mm as cm
from continual_mm.data.pack import write_pack
from continual_mm.learning.projection import Distillation
from continual_mm.metrics.retrieval import ranks
from continual_mm.runs import consolidation
from continual_mm.system.errors import InputError

EXPAND = cm.Strategy(name="expand", plugins={"expand": {"size": 4, "rank": 4}})
STAGES = (
    cm.Stage(add=("video", "audio")),
    cm.Stage(add=("text",), pairs=("video-text",)),
)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(consolidation, "SETTINGS", Distillation(steps=20, items=64))


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """A pack of 240 items with five numbers in common; some lack their text."""
    rng = np.random.default_rng(3)
    shared = rng.standard_normal((240, 5))
    arrays = {
        name: (shared @ rng.standard_normal((5, 6))).astype(np.float32)
        for name in ("video", "audio", "text")
    }
    path = tmp_path_factory.mktemp("data") / "mine.npz"
    items = {"ids": np.arange(240).astype(str), "split": np.repeat([0, 1, 2], 80)}
    present = np.arange(240) % 8 != 0
    write_pack(path, {**arrays, "text_present": present, **items})
    return path


@pytest.fixture(scope="module")
def trained(pack, tmp_path_factory):
    """(strategy, settings of the scenario) -> the folder of a run of six steps a stage."""
    out = tmp_path_factory.mktemp("runs")

    def train(strategy=EXPAND, *, name="small", **settings):
        made = cm.Scenario(
            **{
                "name": name,
                "dataset": str(pack),
                "space": cm.SpaceSettings(dim=8, clusters=3),
                "training": cm.Training(steps=6, batch_size=8, learning_rate=1e-2),
                "stages": STAGES,
                **settings,
            }
        )
        cm.run(made, strategy, cm.read_pack(pack), out, device="cpu", board=False)
        return out / name / strategy.name / "seed-0"

    return train


@pytest.fixture(scope="module")
def grown(trained):
    return trained()


def contents(folder):
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_what_is_written_opens_as_a_run_does_and_the_run_stays_as_it_was(grown, pack, tmp_path):
    before = contents(grown)
    found = cm.consolidate(grown, 6, to=tmp_path / "six", device="cpu")
    assert contents(grown) == before
    space, reduced = cm.open_run(grown), cm.open_run(found.folder)
    assert reduced.size == 6 < space.size
    for name in ("video", "audio", "text"):
        values = cm.read_pack(pack).columns[name].values[1:5]
        vectors = reduced.encode(name, values)
        assert vectors.shape == (4, 6)
        assert torch.allclose(vectors, space.encode(name, values) @ reduced.projection)
    assert reduced.encode("text", values[0]).shape == (6,)


def test_without_a_folder_it_lies_beside_the_run_and_comparisons_do_not_see_it(trained, typed):
    run = trained(name="beside")
    found = cm.consolidate(run, 3, device="cpu")
    assert found.folder == run.with_name("seed-0-dim-3")
    assert "1 run" not in typed("status", run.parent).out
    assert typed("status", run.parent).out.count("beside") == 1


def test_its_scores_are_those_of_the_vectors_that_it_gives(grown, pack, tmp_path):
    found = cm.consolidate(grown, 4, to=tmp_path / "four", device="cpu")
    data = cm.read_pack(pack)
    for folder, kind in ((grown, "as they were"), (found.folder, "consolidated")):
        space = cm.open_run(folder)
        (scored,) = (each for each in found.measured if each.vectors == kind)
        assert (scored.numbers, scored.bytes) == (space.size, 4 * space.size)
        for split, number in (("validation", 1), ("test", 2)):
            rows = (data.split == number) & data.columns["text"].present
            video, text = (
                space.encode(name, data.columns[name].values[rows], standardised=True)
                for name in ("video", "text")
            )
            both = [(ranks(s) < 1).double().mean() for s in (video @ text.T, text @ video.T)]
            mean = float(sum(both) / 2)
            assert scored.scores[split].new == pytest.approx(mean)
            assert scored.scores[split].pairs["text-video"] == pytest.approx(mean)
    written = json.loads((found.folder / "consolidation.json").read_text())
    assert [each["vectors"] for each in written["measured"]] == [
        *("as they were", "consolidated", "principal axes", "random axes")
    ]
    test = json.loads((grown / "scores.json").read_text())["evaluations"][-6:]
    mean = np.mean([each["recall@1"] for each in test if each["pair"] == "text-video"])
    assert found.measured[0].scores["test"].new == pytest.approx(mean)


def test_the_map_that_changes_choices_of_validation_items_less_is_kept(grown, tmp_path):
    found = cm.consolidate(grown, 2, to=tmp_path / "two", device="cpu")
    assert found.divergences[found.kept] == min(found.divergences.values())
    assert set(found.divergences) == {"learned", "principal axes"}


def test_the_same_seed_writes_the_same_bytes(grown, tmp_path):
    one, two = (cm.consolidate(grown, 3, to=tmp_path / name, device="cpu") for name in "ab")
    assert contents(one.folder) == contents(two.folder)


def test_the_dataset_may_be_given_and_another_one_is_refused(grown, pack, tmp_path, written):
    elsewhere = tmp_path / "moved.npz"
    elsewhere.write_bytes(pack.read_bytes())
    found = cm.consolidate(grown, 3, dataset=elsewhere, to=tmp_path / "moved", device="cpu")
    assert found.numbers == 3
    cm.consolidate(grown, 3, dataset=cm.read_pack(pack), to=tmp_path / "object", device="cpu")
    other = written(tmp_path / "other.npz")
    with pytest.raises(InputError, match="is not what the run was trained on, 'mine'"):
        cm.consolidate(grown, 3, dataset=other, to=tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_a_dataset_that_is_gone_is_asked_for(trained, tmp_path):
    run = trained(name="gone", dataset="gone.npz")
    with pytest.raises(InputError, match=r"'gone\.npz': .* give --dataset PATH"):
        cm.consolidate(run, 3, to=tmp_path / "new")


def test_a_dataset_that_was_given_to_the_run_as_an_object_is_asked_for(trained, tmp_path, pack):
    run = trained(name="unnamed", dataset="")
    with pytest.raises(InputError, match="was given to the run as an object"):
        cm.consolidate(run, 3, to=tmp_path / "new")
    assert cm.consolidate(run, 3, to=tmp_path / "new", dataset=pack).numbers == 3


def test_of_many_items_only_a_sample_is_kept_while_all_count(grown, pack, monkeypatch):
    monkeypatch.setattr(consolidation, "SAMPLE", 30)
    monkeypatch.setattr(consolidation, "EVALUATION_ROWS", 32)
    space, data, done = cm.open_run(grown), cm.read_pack(pack), []
    moments, sample = consolidation.training_vectors(
        space, data, seed=0, tell=lambda _, *counts: done.append(counts)
    )
    assert done == [(32, 80), (64, 80), (80, 80)]
    assert len(sample.items) == len(sample.of["video"]) == 30
    training = [
        space.encode(
            name,
            data.columns[name].values[(data.split == 0) & data.columns[name].present],
            standardised=True,
        )
        for name in ("video", "audio", "text")
    ]
    second = sum(each.double().T @ each.double() / len(each) for each in training)
    largest = torch.linalg.eigvalsh(second)[-3:].sum()
    axes = moments.principal_axes(3, {}).double()
    assert torch.trace(axes.T @ second @ axes) == pytest.approx(float(largest))


def test_a_dataset_may_lack_a_modality_that_the_run_started_with(trained, tmp_path, pack):
    first = trained(NAIVE, name="first", stages=(cm.Stage(add=("video", "text")),))
    whole = cm.read_pack(pack, standardise=False)
    path = tmp_path / "without.npz"
    arrays = {name: 2 * whole.columns[name].values + 1 for name in ("video", "audio")}
    write_pack(path, {**arrays, "ids": whole.ids, "split": whole.split})
    stages = (cm.Stage(add=("audio",), pairs=("audio-video",)),)
    further = cm.Scenario(
        name="further",
        dataset=str(path),
        start=str(first),
        space=cm.SpaceSettings(dim=8, clusters=3),
        training=cm.Training(steps=6, batch_size=8),
        stages=stages,
    )
    with pytest.raises(InputError, match="video is standardised otherwise in dataset 'without'"):
        cm.run(further, EXPAND, cm.read_pack(path), tmp_path, device="cpu", board=False)
    known = {**cm.open_run(first).statistics, "audio": True}
    data = cm.read_pack(path, standardise=known)
    cm.run(further, EXPAND, data, tmp_path, device="cpu", board=False)
    run = tmp_path / "further" / "expand" / "seed-0"
    found = cm.consolidate(run, 4, device="cpu")
    assert set(found.measured[0].scores["test"].pairs) == {"audio-video"}
    assert cm.open_run(found.folder).encode("text", np.zeros((2, 6))).shape == (2, 4)


def test_a_consolidated_space_neither_grows_nor_is_started_from(grown, pack, tmp_path):
    folder = cm.consolidate(grown, 3, to=tmp_path / "three", device="cpu").folder
    space = cm.open_run(folder)
    with pytest.raises(ValueError, match="cannot grow"):
        space.append_subspace(2, ["text"])
    with pytest.raises(ValueError, match="reduced"):
        space.add_modality(cm.Modality("touch", cm.Kind.VECTOR, (3,)))
    with pytest.raises(ValueError, match="reduced before"):
        space.reduce(torch.eye(3))
    with pytest.raises(InputError, match="is consolidated already"):
        cm.consolidate(folder, 2)
    further = cm.Scenario(name="further", start=str(folder), stages=(cm.Stage(add=("text",)),))
    with pytest.raises(InputError, match="cannot learn more; start from the run"):
        cm.train(further, cm.read_pack(pack))


PAIR_LORA = cm.Strategy(name="pair_lora", plugins={"pair_lora": {"rank": 2}})
NAIVE = cm.Strategy(name="naive")


def test_runs_that_give_no_single_vector_per_item_are_refused(trained, tmp_path):
    with pytest.raises(InputError, match="an item has a vector for each pair"):
        cm.consolidate(trained(PAIR_LORA, name="pairs"), 3)
    published = cm.SpaceSettings(mode="reference", dim=8, clusters=3, reconstruction_width=7)
    with pytest.raises(InputError, match="in reference mode cannot be consolidated"):
        cm.consolidate(trained(NAIVE, name="published", space=published), 3)
    with pytest.raises(InputError, match="no finished run in this folder"):
        cm.consolidate(tmp_path, 3)


@pytest.mark.parametrize("dim", [0, -1])
def test_fewer_numbers_than_one_are_refused(trained, tmp_path, dim):
    with pytest.raises(InputError, match=f"dim: {dim} is no number of coordinates"):
        cm.consolidate(trained(NAIVE), dim, to=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_run_that_has_not_grown_is_consolidated_too(trained, tmp_path, grown):
    found = cm.consolidate(trained(NAIVE), 3, to=tmp_path / "naive", device="cpu")
    assert cm.open_run(found.folder).size == 3
    size = cm.open_run(grown).size
    with pytest.raises(InputError, match=f"dim: {size} is not less than the {size} numbers"):
        cm.consolidate(grown, size)
    with pytest.raises(InputError, match="is there already"):
        cm.consolidate(grown, 3, to=found.folder)


def test_the_command_shows_a_table_for_each_split_or_all_of_it_as_json(grown, typed, tmp_path):
    command = ("consolidate", grown, "--dim", 3, "--device", "cpu")
    shown = typed(*command, "--to", tmp_path / "table")
    assert shown.code == 0
    for text in ("small/expand/seed-0: R@1 in %, validation items", "test items", "open_run("):
        assert text in shown.out
    printed = json.loads(typed(*command, "--to", tmp_path / "json", "--format", "json").out)
    assert printed["numbers"] == 3
    assert printed["measured"][0]["scores"]["test"]["old"] > 0
    again = typed(*command, "--to", tmp_path / "json")
    assert again.code == 2
    assert again.err.count("\n") == 1
    assert "is there already" in again.err
