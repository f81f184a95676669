"""Runs: what a folder holds, resuming, refusals, and the trained space read back."""

import json
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from continual_mm.comparison.compare import compare
from continual_mm.data.dataset import Dataset, Split
from continual_mm.definitions.scenario import MemorySettings, Strategy
from continual_mm.learning.guard import NotFiniteError
from continual_mm.plugins.registry import build
from continual_mm.plugins.replay import Replay
from continual_mm.runs.reporter import RunReporter
from continual_mm.runs.run import open_run, run, train
from continual_mm.system.errors import InputError

PROTECTED = Strategy(
    name="all",
    memory=MemorySettings(items=12),
    plugins={"replay": {"rows": 8}, "ewc": {"batches": 2, "rows": 8}, "transport": {"rows": 8}},
)
FOLDER = Path("small", "all", "seed-0")


@pytest.fixture(scope="module")
def protected(scenario, dataset, tmp_path_factory):
    """Where a finished run lies, and its history."""
    out = tmp_path_factory.mktemp("runs")
    return out, run(scenario, PROTECTED, dataset, out, device="cpu")


def test_a_pair_that_is_not_learned_is_named_with_what_may_help(scenario, dataset, tmp_path):
    class Warned(RunReporter):
        def __init__(self):
            self.texts = []

        def warns(self, text):
            self.texts.append(text)

    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal((300, 6, 4)) for name in ("video", "audio", "text")}
    noise = Dataset.from_arrays(arrays, split=np.repeat([0, 1, 2], 100))
    warned = Warned()
    strategy = Strategy(name="naive")
    run(scenario, strategy, noise, tmp_path, reporter=warned)
    assert [text.partition(" is near chance")[0] for text in warned.texts] == [
        "stage 1: audio-video",
        "stage 2: text-video",
    ]
    assert '[tower.audio] kind = "flat"' in warned.texts[0]
    notes = compare([tmp_path]).notes
    assert any("text-video, trained in stage 2, ended it near chance" in n for n in notes)


def test_a_run_leaves_everything_that_is_promised(protected):
    out, history = protected
    folder = out / FOLDER
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["pairs"] == {
        "audio-video": {"birth": 1, "role": "old"},
        "text-video": {"birth": 2, "role": "new"},
        "audio-text": {"birth": 2, "role": "emergent"},
    }
    assert {(e["stage"], e["step"], e["final"]) for e in scores["evaluations"]} == {
        (1, 4, False), (1, 8, False), (1, 9, True), (2, 13, False), (2, 17, False), (2, 18, True),
    }  # fmt: skip
    assert {"recall@1", "recall@5", "recall@10", "median_rank"} <= set(scores["evaluations"][0])
    assert "second" not in (folder / "scores.json").read_text()
    last = [e for e in scores["evaluations"] if e["stage"] == 2 and e["final"]]
    with np.load(folder / "ranks" / "stage-2.npz", allow_pickle=False) as ranks:
        for entry in last:
            found = ranks[f"{entry['split']}/{entry['pair']}/{entry['direction']}"]
            assert entry["recall@1"] == pytest.approx((found < 1).mean())
            assert entry["median_rank"] == np.median(found) + 1
    cost = json.loads((folder / "cost.json").read_text())
    assert [cost[name] for name in ("steps", "memory_items", "recalled_rows")] == [18, 12, 8]
    assert cost["memory_bytes"] > 12 * 2 * 6 * 4
    versions = json.loads((folder / "versions.json").read_text())
    assert torch.__version__.startswith(versions["torch"])
    assert list((folder / "events").glob("events.*"))
    both = [e["recall@1"] for e in last if e["pair"] == "audio-video" and e["split"] == "test"]
    assert history.recall("audio-video") == pytest.approx(np.mean(both))


def test_evaluations_checkpoints_workers_and_the_board_change_no_number(
    protected, scenario, dataset, changed, tmp_path, same, results
):
    quiet, plugins = changed(scenario, evaluate_every=0), list(build(PROTECTED).values())
    alone = train(quiet, dataset, plugins=plugins, memory=12, device="cpu")
    assert same(alone.space.state_dict(), protected[1].space.state_dict())
    options = {"checkpoint_every": 2, "workers": 2, "board": False}
    run(scenario, PROTECTED, dataset, tmp_path, device="cpu", **options)
    assert results(tmp_path) == results(protected[0])
    assert not (tmp_path / FOLDER / "events").exists()
    assert json.loads((tmp_path / FOLDER / "cost.json").read_text())["step_seconds"] > 0


def test_a_finished_run_is_not_trained_again(protected, scenario, dataset, stop_at, results):
    out, history = protected
    before = results(out)
    again = run(scenario, PROTECTED, dataset, out, device="cpu", reporter=stop_at(1))
    assert results(out) == before
    assert again.headline() == history.headline()


def test_the_trained_space_is_given_back(protected, dataset):
    out, history = protected
    space = open_run(out / FOLDER)
    values = dataset.columns["text"].values[:4]
    assert torch.equal(space.encode("text", values), history.space.encode("text", values))
    assert [modality.name for modality in space.modalities] == ["video", "audio", "text"]
    with pytest.raises(InputError, match="no finished stage"):
        open_run(out)


def test_no_file_of_a_run_is_a_pickle(protected):
    out, _ = protected
    kinds = {path.suffix for path in out.rglob("*") if path.is_file()}
    events = {suffix for suffix in kinds if suffix.strip(".").isdigit()}
    assert kinds - events == {
        *(".json", ".npz", ".safetensors", ".lock", ".bytes", ".pbtxt", ".tsv", ".csv"),
    }
    for path in out.rglob("*.npz"):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                assert b"'descr': '|O'" not in archive.read(name)[:128]


def test_a_damaged_checkpoint_is_refused_by_name(protected, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(protected[0] / FOLDER, folder)
    weights = folder / "checkpoints" / "stage-2" / "space.safetensors"
    tensors = load_file(weights)
    tensors["log_scale"] += 1
    save_file(tensors, weights)
    with pytest.raises(InputError, match=r"space\.safetensors: is missing or damaged"):
        open_run(folder)


def test_another_definition_in_the_same_folder_is_refused(
    scenario, dataset, changed, tmp_path, stop_at
):
    plain = Strategy(name="all")
    run(scenario, plain, dataset, tmp_path, device="cpu")
    with pytest.raises(InputError, match=r"scenario\.training\.steps was 9, is 10"):
        run(changed(scenario, steps=10), plain, dataset, tmp_path, device="cpu")
    with pytest.raises(InputError, match=r"memory\.items|strategy\.memory"):
        run(scenario, PROTECTED, dataset, tmp_path, device="cpu")
    # Descriptions and the place of the file are no part of the definition.
    reworded = changed(scenario, description="other words", folder="elsewhere")
    run(reworded, plain, dataset, tmp_path, device="cpu", reporter=stop_at(1))


def test_finished_stages_survive_a_number_that_is_not_finite(scenario, dataset, tmp_path):
    late = Strategy(name="late", plugins={"ewc": {"weight": 1e38, "batches": 1, "rows": 8}})
    with pytest.raises(NotFiniteError, match="stage 2"):
        run(scenario, late, dataset, tmp_path, device="cpu")
    folder = tmp_path / "small" / "late" / "seed-0"
    assert [modality.name for modality in open_run(folder).modalities] == ["video", "audio"]
    assert not (folder / "cost.json").exists()


def test_an_embedding_that_is_not_finite_is_reported_with_its_modality(scenario, dataset):
    class Bursting(torch.nn.Linear):
        def forward(self, values):
            return super().forward(values) * (1 if self.training else float("inf"))

    with pytest.raises(NotFiniteError, match=r"embedding of the validation items .*video"):
        train(scenario, dataset, towers={"video": Bursting(8, 8)}, device="cpu")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"plugins": [Replay()]}, "Replay: it needs past items, but there is no memory"),
        ({"plugins": [Replay()], "memory": 8, "joint": True}, "joint training .* nothing"),
        ({"plugins": ["replay"], "memory": 8}, r"\['replay'\] is no sequence of .*; give objects"),
        (
            {"plugins": [Replay], "memory": 8},
            r"is no sequence of .*; give objects, such as .*Replay\(",
        ),
    ],
)
def test_a_plugin_that_would_do_nothing_is_refused(scenario, dataset, given, expected):
    with pytest.raises(InputError, match=expected):
        train(scenario, dataset, device="cpu", **given)


def test_a_pair_that_no_test_item_has_is_refused_and_one_that_a_single_item_has_is_not(scenario):
    split = np.repeat([0, 1, 2], [20, 4, 6])
    has_audio = np.repeat([True, False], [24, 6])

    def dataset():
        rng = np.random.default_rng(0)
        arrays = {name: rng.standard_normal((30, 3)) for name in ("video", "audio", "text")}
        # What has audio has no caption, except in training.
        present = {"audio": has_audio, "text": ~has_audio | (split == 0)}
        return Dataset.from_arrays(arrays, split=split, present=present, name="mine")

    with pytest.raises(InputError) as caught:
        train(scenario, dataset(), device="cpu")
    assert [one.message for one in caught.value.problems] == [
        "no test item has both audio and video, a pair that is trained",
        "no validation item has both text and video, a pair that is trained",
    ]
    has_audio[24] = True
    first = scenario.model_copy(update={"stages": scenario.stages[:1]})
    history = train(first, dataset(), device="cpu")
    assert {score.queries for score in history.scores if score.split == "test"} == {1}


@pytest.fixture(scope="module")
def adapted(scenario, changed, dataset, tmp_path_factory):
    """A run with adapters for the pair of video and text."""
    longer = changed(scenario, steps=25, evaluate_every=0, dim=16, clusters=0)
    out = tmp_path_factory.mktemp("adapted")
    lora = Strategy(name="lora", plugins={"pair_lora": {"rank": 3, "alpha": 5.0}})
    run(longer, lora, dataset, out, device="cpu")
    return out / "small" / "lora" / "seed-0"


def ranks_in(space, dataset, query, gallery):
    """Rank of each test query's partner, counted here."""
    rows = dataset.rows_of(Split.TEST)
    sides = [
        space.encode(n, dataset.columns[n].values[rows], standardised=True)
        for n in (query, gallery)
    ]
    similarity = sides[0] @ sides[1].T
    return (similarity > similarity.diagonal()[:, None]).sum(1).numpy()


def test_a_pair_is_ranked_as_the_run_has_scored_it(adapted, dataset):
    scored = np.load(adapted / "ranks" / "stage-2.npz")
    pair, bare = open_run(adapted, pair="video-text"), open_run(adapted)
    for sides in (("video", "text"), ("text", "video")):
        expected = scored[f"test/text-video/{' to '.join(sides)}"]
        assert np.array_equal(ranks_in(pair, dataset, *sides), expected)
        assert not np.array_equal(ranks_in(bare, dataset, *sides), expected)
    assert pair.state_dict().keys() == bare.state_dict().keys()


@pytest.mark.parametrize(("wrong", "named"), [("smell-text", "smell"), ("video", "hyphen")])
def test_what_is_no_pair_of_the_space_is_refused(wrong, named, adapted):
    with pytest.raises(InputError, match=rf"{named}.*video, audio, text"):
        open_run(adapted, pair=wrong)


def test_without_peft_only_a_pair_with_adapters_is_refused(adapted, monkeypatch, same):
    monkeypatch.delitem(sys.modules, "continual_mm.plugins.adapters", raising=False)
    monkeypatch.setitem(sys.modules, "peft", None)
    old, bare = open_run(adapted, pair="video-audio"), open_run(adapted)
    assert same(old.state_dict(), bare.state_dict())
    with pytest.raises(InputError, match=r"peft is not installed; pip install 'continual-mm\[l"):
        open_run(adapted, pair="video-text")
