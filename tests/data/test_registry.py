"""Datasets by name or by path; what is none is refused with the command that helps."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from continual_mm.comparison import exported
from continual_mm.data import registry
from continual_mm.data.pack import write_pack
from continual_mm.data.recognise import recognised
from continual_mm.preparation.extraction import clip_files
from continual_mm.system.errors import InputError


@pytest.fixture
def pack(tmp_path):
    path = tmp_path / "packs" / "mine.npz"
    path.parent.mkdir()
    rows = np.arange(12.0).reshape(6, 2)
    ids = np.array(list("abcdef"))
    write_pack(path, {"audio": rows, "ids": ids, "split": np.array([0, 0, 0, 0, 1, 2])})
    return path


def test_a_path_is_relative_to_the_folder_of_the_scenario(pack, monkeypatch):
    card = registry.card("packs/mine.npz", folder=pack.parents[1])
    assert card.name == "mine"
    assert registry.card("../packs/mine.npz", folder=pack.parent) == card
    assert registry.card(str(pack), folder=Path("elsewhere")) == card
    assert registry.load("packs/mine.npz", folder=pack.parents[1]).card == card
    monkeypatch.chdir(pack.parent)
    assert registry.card("mine.npz") == card
    monkeypatch.setenv("HOME", str(pack.parents[1]))
    assert registry.card("~/packs/mine.npz", folder=Path("elsewhere")) == card


def test_a_registered_card_waits_for_no_generator():
    code = """
import sys
from continual_mm.data import registry
for name in registry.REGISTERED:
    if registry.card(name).name != name or {"torch", "numpy", "gensim"} & sys.modules.keys():
        sys.exit(name)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_an_unknown_dataset_is_refused_with_the_names_and_the_path_tried(tmp_path):
    for ask in (registry.card, registry.load):
        with pytest.raises(InputError) as caught:
            ask("narated_shapes", folder=tmp_path)
        message = str(caught.value)
        assert "registered: narrated_shapes" in message
        assert f"no file {tmp_path / 'narated_shapes'}" in message
        assert "did you mean 'narrated_shapes'?" in message


def test_a_generated_dataset_has_the_card_that_was_known_before_it_was_made():
    loaded = registry.load("narrated_shapes")
    assert loaded.card == registry.card("narrated_shapes")
    assert tuple(loaded.columns) == loaded.card.names


FILES = {
    "youcook_val_audio.pkl": "convert youcook2 --test {} ",
    "youcook_train_audio.pkl": "convert youcook2 --train {} ",
    "msrvtt_jsfusion_test.pkl": "convert msrvtt --test {} ",
    "lsmdc.pickle": "convert lsmdc --test {} ",
    "ucf101.pt": "convert ucf101 {} ",
    "caption.pickle": "convert howto100m PATHS.csv --features FOLDER --captions {} ",
    "other.pkl": "data convert --help",
    "clip.MP4": "data extract {parent} --to",
    "clips.csv": "data extract {} --to",
    "videos.json": "convert howto100m {} --help",
    "table.parquet": "name the folder that it lies in: {parent}",
    "store.json": "name its folder: {parent}",
}


def put(folder, *names):
    for path in (folder / name for name in names):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_recognised_by_its_name(tmp_path, name):
    put(tmp_path, name)
    with pytest.raises(InputError) as caught:
        registry.load(str(tmp_path / name))
    (problem,) = caught.value.problems
    assert problem.place == str(tmp_path / name)
    assert FILES[name].format(tmp_path / name, parent=tmp_path) in problem.remedy


@pytest.mark.parametrize(
    ("files", "hint"),
    [
        ((clip_files.JOB, clip_files.CLIP_LIST), "data convert clips {} --to mine.npz"),
        ((exported.ROWS, exported.DEFINITIONS, exported.RANKS), "continual-mm compare {}"),
        (("av_t/naive/seed-0/definition.json",), "continual-mm compare {}"),
        (("deep/a.mkv",), "data extract {} --to"),
        (("a.mkv", "clips.csv"), "data extract {}/clips.csv --to"),
        (("abc/abc_2d.npz",), "--features {} "),
        (("one.npz",), "name it: {}/one.npz"),
        (("one/store.json",), "name it: {}/one"),
        (("lsmdc_train.pkl",), "name it: {}/lsmdc_train.pkl"),
        ((), "is an empty folder"),
    ],
)
def test_a_folder_is_recognised_by_its_files(tmp_path, files, hint):
    (tmp_path / "mine").mkdir()
    put(tmp_path / "mine", *files)
    with pytest.raises(InputError) as caught:
        registry.load("mine", folder=tmp_path)
    assert hint.format(tmp_path / "mine") in str(caught.value)


def test_what_may_be_a_dataset_is_left_to_its_reader(tmp_path):
    np.savez(tmp_path / "mine_2d.npz", ids=np.array(["a"]), features=np.ones((1, 2)))
    put(tmp_path, "tables/train.parquet", "tables/a.wav", "rows/train.jsonl")
    for name in "mine_2d.npz", "tables", "rows":
        assert recognised(tmp_path / name) is None


def test_a_command_can_be_copied_whatever_the_path(tmp_path):
    put(tmp_path / "my clips", "a.mkv")
    problem = recognised(tmp_path / "my clips")
    assert f"data extract '{tmp_path / 'my clips'}' --to" in problem.remedy
