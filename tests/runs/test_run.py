"""Runs: what a folder holds, going on after a stop, and giving the space back."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.scenario import (
    MemorySettings,
    Scenario,
    SpaceSettings,
    Stage,
    Strategy,
    Training,
)
from continual_mm.learning.guard import NotFiniteError
from continual_mm.plugins.registry import build
from continual_mm.plugins.replay import Replay
from continual_mm.runs.reporter import RunReporter
from continual_mm.runs.run import choose_device, open_run, run, train
from continual_mm.system.errors import InputError

PROTECTED = Strategy(
    name="all",
    memory=MemorySettings(items=12),
    plugins={
        "replay": {"rows": 8},
        "ewc": {"batches": 2, "rows": 8},
        "transport": {"rows": 8},
    },
)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    rng = np.random.default_rng(3)
    shared = rng.standard_normal((90, 5))
    arrays = {n: shared @ rng.standard_normal((5, 6)) for n in ("video", "audio", "text")}
    return Dataset.from_arrays(arrays, split=np.repeat([0, 1, 2], 30))


@pytest.fixture
def scenario() -> Scenario:
    return Scenario(
        name="small",
        space=SpaceSettings(dim=8, clusters=3, refresh_every=4),
        training=Training(steps=9, batch_size=8, learning_rate=1e-2, evaluate_every=4),
        stages=(
            Stage(add=("video", "audio")),
            Stage(add=("text",), pairs=("video-text",)),
        ),
    )


def files(folder: Path) -> dict[str, bytes]:
    wanted = ("scores.json", "definition.json", "stage-1.npz", "stage-2.npz", "space.safetensors")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.name in (*wanted, "state.safetensors")
    }


class StopAt(RunReporter):
    """Ends a run the way Ctrl-C does, after some optimiser steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def steps(self, count: int) -> None:
        self.left -= count
        if self.left == 0:
            raise KeyboardInterrupt


def test_a_run_leaves_everything_that_is_promised(scenario, dataset, tmp_path):
    history = run(scenario, PROTECTED, dataset, tmp_path, seed=1, device="cpu")
    folder = tmp_path / "small" / "all" / "seed-1"
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["pairs"]["audio-video"] == {"birth": 1, "role": "old"}
    assert scores["pairs"]["text-video"] == {"birth": 2, "role": "new"}
    assert scores["pairs"]["audio-text"] == {"birth": 2, "role": "emergent"}
    moments = {(e["stage"], e["step"], e["final"]) for e in scores["evaluations"]}
    assert moments == {
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
    assert cost["steps"] == 18
    assert cost["memory_items"] == 12
    assert cost["recalled_rows"] == 8
    assert cost["memory_bytes"] > 12 * 2 * 6 * 4
    versions = json.loads((folder / "versions.json").read_text())
    assert torch.__version__.startswith(versions["torch"])
    assert list((folder / "events").glob("events.*"))
    expected = history.recall("audio-video")
    both = [e["recall@1"] for e in last if e["pair"] == "audio-video" and e["split"] == "test"]
    assert expected == pytest.approx(np.mean(both))


def test_a_stopped_run_goes_on_to_the_same_bits(scenario, dataset, tmp_path):
    run(scenario, PROTECTED, dataset, tmp_path / "whole", device="cpu")
    for steps in (5, 12):
        with pytest.raises(KeyboardInterrupt):
            run(
                scenario, PROTECTED, dataset, tmp_path / "parts", device="cpu",
                reporter=StopAt(steps),
            )  # fmt: skip
    run(scenario, PROTECTED, dataset, tmp_path / "parts", device="cpu")
    whole, parts = files(tmp_path / "whole"), files(tmp_path / "parts")
    assert len(whole) == 8
    assert whole == parts


def test_logging_checkpoints_and_workers_change_no_weight(scenario, dataset, tmp_path):
    quiet = scenario.model_copy(
        update={"training": scenario.training.model_copy(update={"evaluate_every": 0})}
    )
    plugins = list(build(PROTECTED).values())
    alone = train(quiet, dataset, plugins=plugins, memory=12, device="cpu").space.state_dict()
    watched = run(
        scenario, PROTECTED, dataset, tmp_path, device="cpu", checkpoint_every=2, workers=2
    ).space.state_dict()
    assert alone.keys() == watched.keys()
    assert all(torch.equal(alone[name], watched[name]) for name in alone)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"plugins": [Replay()]}, "Replay: it needs past items, but there is no memory"),
        ({"plugins": [Replay()], "memory": 8, "joint": True}, "joint training .* nothing"),
    ],
)
def test_a_plugin_that_would_do_nothing_is_refused(scenario, dataset, given, said):
    with pytest.raises(InputError, match=said):
        train(scenario, dataset, device="cpu", **given)


def test_an_embedding_that_is_not_finite_is_told_by_its_modality(scenario, dataset):
    class Bursting(torch.nn.Linear):
        def forward(self, values):
            return super().forward(values) * (1 if self.training else float("inf"))

    with pytest.raises(NotFiniteError, match=r"embedding of the validation items .*video"):
        train(scenario, dataset, towers={"video": Bursting(6, 8)}, device="cpu")


def test_a_finished_run_is_not_trained_again(scenario, dataset, tmp_path):
    run(scenario, PROTECTED, dataset, tmp_path, device="cpu")
    before = files(tmp_path)
    again = run(scenario, PROTECTED, dataset, tmp_path, device="cpu", reporter=StopAt(1))
    assert files(tmp_path) == before
    assert again.headline()["old_pairs"] == again.headline()["old_pairs"]


def test_another_definition_in_the_same_folder_is_refused(scenario, dataset, tmp_path):
    run(scenario, Strategy(name="all"), dataset, tmp_path, device="cpu")
    changed = scenario.model_copy(
        update={"training": scenario.training.model_copy(update={"steps": 10})}
    )
    with pytest.raises(InputError, match=r"scenario\.training\.steps was 9, is 10"):
        run(changed, Strategy(name="all"), dataset, tmp_path, device="cpu")
    with pytest.raises(InputError, match=r"memory\.items|strategy\.memory"):
        run(scenario, PROTECTED, dataset, tmp_path, device="cpu")


def test_descriptions_and_the_place_of_the_file_are_no_part_of_the_definition(
    scenario, dataset, tmp_path
):
    run(scenario, Strategy(name="plain"), dataset, tmp_path, device="cpu")
    reworded = scenario.model_copy(update={"description": "other words", "folder": "elsewhere"})
    run(reworded, Strategy(name="plain"), dataset, tmp_path, device="cpu", reporter=StopAt(1))


def test_the_trained_space_is_given_back(scenario, dataset, tmp_path):
    history = run(scenario, PROTECTED, dataset, tmp_path, device="cpu")
    space = open_run(tmp_path / "small" / "all" / "seed-0")
    values = dataset.columns["text"].values[:4]
    assert torch.equal(space.encode("text", values), history.space.encode("text", values))
    assert [modality.name for modality in space.modalities] == ["video", "audio", "text"]
    with pytest.raises(InputError, match="no finished stage"):
        open_run(tmp_path)


def test_no_file_of_a_run_is_a_pickle(scenario, dataset, tmp_path):
    run(scenario, PROTECTED, dataset, tmp_path, device="cpu")
    kinds = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    events = {suffix for suffix in kinds if suffix.strip(".").isdigit()}
    assert kinds - events == {".json", ".npz", ".safetensors", ".lock", ".bytes", ".pbtxt", ".tsv"}
    for path in tmp_path.rglob("*.npz"):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                assert b"'descr': '|O'" not in archive.read(name)[:128]


def test_a_damaged_checkpoint_is_refused_by_name(scenario, dataset, tmp_path):
    run(scenario, PROTECTED, dataset, tmp_path, device="cpu")
    folder = tmp_path / "small" / "all" / "seed-0"
    weights = folder / "checkpoints" / "stage-2" / "space.safetensors"
    tensors = load_file(weights)
    tensors["log_scale"] += 1
    save_file(tensors, weights)
    with pytest.raises(InputError, match=r"space\.safetensors: is missing or damaged"):
        open_run(folder)


def test_finished_stages_survive_a_number_that_is_not_finite(scenario, dataset, tmp_path):
    late = Strategy(name="late", plugins={"ewc": {"weight": 1e38, "batches": 1, "rows": 8}})
    with pytest.raises(NotFiniteError, match="stage 2"):
        run(scenario, late, dataset, tmp_path, device="cpu")
    folder = tmp_path / "small" / "late" / "seed-0"
    assert [modality.name for modality in open_run(folder).modalities] == ["video", "audio"]
    assert not (folder / "cost.json").exists()


def test_joint_training_is_scored_once_at_the_last_stage(scenario, dataset, tmp_path):
    joint = Strategy(name="joint", joint=True)
    history = run(scenario, joint, dataset, tmp_path, device="cpu")
    assert {score.stage for score in history.scores} == {2}
    headline = history.headline()
    assert np.isnan(headline["forgetting"])
    assert headline["harmonic_mean"] > 0


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="use auto or cpu"):
        choose_device("nonsense")
    assert choose_device("cpu").type == "cpu"


@pytest.mark.parametrize("stranger", ["replay", Replay])
def test_what_is_no_plugin_is_refused_instead_of_doing_nothing(scenario, dataset, stranger):
    with pytest.raises(InputError, match="is no plugin; give objects, such as Replay"):
        train(scenario, dataset, plugins=[stranger], memory=8, device="cpu")


def test_without_a_board_the_numbers_are_the_same_and_nothing_is_written_for_it(
    scenario, dataset, tmp_path
):
    for board in (True, False):
        run(scenario, PROTECTED, dataset, tmp_path / f"{board}", device="cpu", board=board)
    seen, unseen = (tmp_path / f"{board}" / "small" / "all" / "seed-0" for board in (True, False))
    assert files(unseen) == files(seen)
    assert (seen / "events").is_dir()
    assert not (unseen / "events").exists()
    assert json.loads((unseen / "cost.json").read_text())["step_seconds"] > 0
