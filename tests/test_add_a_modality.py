"""The recipe in docs/ for adding a modality to one's own model works as it is written."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from continual_mm.data.pack import read_pack, write_pack
from continual_mm.data.store.writer import write_store
from continual_mm.definitions.modality import Kind, Modality
from continual_mm.definitions.scenario import Scenario, SpaceSettings, Stage, Strategy, Training
from continual_mm.runs.run import run

PAGE = (Path(__file__).parents[1] / "docs" / "add-a-modality.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"<!-- (?P<mark>[^>]*) -->\n```\w+\n(?P<text>.*?)```", re.DOTALL)


def block(mark, *, containing=""):
    (found,) = [
        m["text"] for m in BLOCK.finditer(PAGE) if m["mark"] == mark and containing in m["text"]
    ]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Features as the first part of the recipe leaves them: embeddings that agree, and sound."""
    folder = tmp_path_factory.mktemp("recipe")
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((90, 12))
    arrays = {name: shared @ rng.standard_normal((12, 512)) for name in ("video", "text")}
    arrays["text"] = arrays["video"] + 5 * rng.standard_normal((90, 512))
    rhythm = shared @ rng.standard_normal((12, 40))
    arrays["audio"] = rhythm[:, None] + rng.standard_normal((90, 16, 40)) - 40
    columns = {name: values.astype(np.float32) for name, values in arrays.items()}
    columns["ids"] = np.array([f"clip {n}" for n in range(90)])
    columns["split"] = np.repeat([0, 1, 2], 30)
    columns["text_raw"] = np.array(["a caption"] * 90)
    columns["audio_length"] = rng.integers(8, 17, 90)
    columns["audio_kind"] = np.array("spectrogram")
    write_pack(folder / "clips.npz", columns)
    return folder


@pytest.fixture
def shown(typed):
    """(command) -> what it shows, at a length that a test can wait for."""

    def show(command):
        _, *words = shlex.split(command)
        if words[0] == "run":
            words = [w for w in words if w not in ("--seeds", "3")]
            words += ["--set", "training.steps=4", "--set", "training.batch_size=16"]
        ended = typed(*words)
        assert not ended.code, ended.err
        return ended.out

    return show


def test_the_commands_of_the_recipe_train_and_compare(folder, monkeypatch, shown):
    monkeypatch.chdir(folder)
    text = block("scenario: clips")
    Path("add_audio.toml").write_text(text)
    Path("moving.toml").write_text(text.replace('"identity"', '"linear"'))
    lines = block("commands: clips").splitlines()
    first, *_, last = (shown(line) for line in lines if line.startswith("continual-mm"))
    assert "fine, a scenario" in first
    assert "add_audio: R@1" in last
    assert "moving: R@1" in last
    printed = []
    exec(block("python: run"), {"print": printed.append})
    assert printed == [(90, 90)]


def test_a_pack_and_a_store_of_other_clips_are_bound_by_the_video_of_both(
    folder, monkeypatch, shown, tmp_path
):
    monkeypatch.chdir(tmp_path)
    sounds = dict(np.load(folder / "clips.npz"))
    del sounds["text"], sounds["text_raw"]
    write_pack(Path("sounds.npz"), sounds)
    clips = np.load(folder / "clips.npz")
    given = (
        {"ids": f"clip {n}", "split": n // 30, "video": clips["video"][n], "text": clips["text"][n]}
        for n in range(90)
    )
    layout = tuple(Modality(name, Kind.VECTOR, (512,)) for name in ("video", "text"))
    write_store(given, Path("captions"), layout=layout)
    Path("two_sources.toml").write_text(block("scenario: two"))
    first, _, last = map(shown, block("commands: two").splitlines())
    counted = [line.split() for line in first.splitlines() if "-" in line and ":" not in line]
    assert counted == [
        ["audio-text", "none", "0", "0", "not", "scored"],
        ["audio-video", "1", "30", "30", "30"],
        ["text-video", "2", "30", "30", "30"],
    ]
    assert "two_sources: audio-text: not scored" in last


def test_the_module_of_the_recipe_is_trained(folder, monkeypatch):
    monkeypatch.chdir(folder)
    printed = []
    exec(block("python: clips"), {"print": printed.append})
    assert printed[0]["forgetting"] == 0
    assert printed[0]["old_pairs"] > 0.5


def test_the_scenario_that_starts_from_a_run_goes_on_from_it(folder, monkeypatch, shown):
    monkeypatch.chdir(folder)
    scenario = Scenario(
        name="video_text",
        space=SpaceSettings(dim=16, clusters=4),
        training=Training(steps=4, batch_size=16),
        stages=(Stage(add=("video", "text")),),
    )
    run(scenario, Strategy(name="naive"), read_pack("clips.npz"), Path("runs"), device="cpu")
    Path("from_run.toml").write_text(block("scenario: run"))
    shown("continual-mm run from_run.toml")
    assert "from_run: R@1" in shown("continual-mm compare runs/from_run")
