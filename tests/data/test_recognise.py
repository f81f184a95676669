"""Paths that name no dataset are refused with the command that helps."""

import numpy as np
import pytest

from continual_mm.comparison import exported
from continual_mm.data import registry
from continual_mm.data.recognise import recognised
from continual_mm.preparation.extraction import job
from continual_mm.system.errors import InputError

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
        ((job.JOB, job.CLIP_LIST), "data convert clips {} --to mine.npz"),
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
