"""Paths that name no dataset are told from one another, with the command that helps."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from continual_mm.comparison import exported
from continual_mm.data import recognise as strangers
from continual_mm.data import registry
from continual_mm.preparation.extraction import job
from continual_mm.system.errors import InputError


def put(path: Path, content: bytes | str = b"x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def lists(path: Path) -> None:
    put(path, "path,text\na.mp4,hello\n")


def captions(path: Path) -> None:
    said = {"start": [0.0], "end": [1.0], "text": ["a word"]}
    put(path, json.dumps({f"video {k}": said for k in range(40_000)}))


FILES = {
    "youcook_val_audio.pkl": "convert youcook2 --test {} ",
    "youcook_train_audio.pkl": "convert youcook2 --train {} ",
    "msrvtt_jsfusion_test.pkl": "convert msrvtt --test {} ",
    "lsmdc.pickle": "convert lsmdc --test {} ",
    "ucf101.pt": "convert ucf101 {} ",
    "caption.pickle": "convert howto100m PATHS.csv --captions {} ",
    "other.pkl": "data convert --help",
    "film.MP4": "data extract {parent} --to",
    "table.parquet": "name the folder that it lies in: {parent}",
    "abc_2d.npz": "convert howto100m PATHS.csv",
    "store.json": "name its folder: {parent}",
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_told_by_its_name(tmp_path: Path, name: str) -> None:
    put(tmp_path / name)
    with pytest.raises(InputError) as caught:
        registry.load(str(tmp_path / name))
    (problem,) = caught.value.problems
    assert problem.place == str(tmp_path / name)
    assert FILES[name].format(tmp_path / name, parent=tmp_path) in problem.remedy


def test_a_pickle_of_another_name_is_told_by_its_keys(tmp_path: Path) -> None:
    clips = [{"id": "a", "2d_pooled": np.ones(4), "eval_caption": "word"}]
    put(tmp_path / "mine", pickle.dumps(clips))
    with pytest.raises(InputError, match="convert msrvtt --test"):
        registry.card(str(tmp_path / "mine"))


def test_tables_are_told_by_their_columns(tmp_path: Path) -> None:
    lists(tmp_path / "clips.csv")
    captions(tmp_path / "said.json")
    put(tmp_path / "clips.jsonl", '{"id": "a", "text": "b"}\n{')
    put(tmp_path / "videos.csv", "video_id,path\na,b\n")
    put(tmp_path / "numbers.tsv", "a\tb\n1\t2\n")
    put(tmp_path / "none.json", "[]")
    for name, part in (
        ("clips.csv", "data extract"),
        ("clips.jsonl", "data extract"),
        ("said.json", f"--captions {tmp_path / 'said.json'}"),
        ("videos.csv", f"convert howto100m {tmp_path / 'videos.csv'}"),
        ("numbers.tsv", "is a table without features"),
        ("none.json", "is a table without features"),
    ):
        with pytest.raises(InputError, match="--") as caught:
            registry.load(str(tmp_path / name))
        assert part in str(caught.value)


def test_folders_are_told_by_what_lies_in_them(tmp_path: Path) -> None:
    for name in job.JOB, job.CLIP_LIST:
        put(tmp_path / "made" / name, "{}")
    for name in exported.ROWS, exported.DEFINITIONS, exported.RANKS:
        put(tmp_path / "exported" / name)
    put(tmp_path / "runs" / "av_t" / "naive" / "seed-0" / strangers.RUN)
    put(tmp_path / "films" / "deep" / "a.mkv")
    put(tmp_path / "listed" / "a.mkv")
    lists(tmp_path / "listed" / "clips.csv")
    put(tmp_path / "howto" / "abc" / "abc_2d.npz")
    put(tmp_path / "packs" / "mine.npz", b"PK")
    put(tmp_path / "stores" / "mine" / "store.json")
    put(tmp_path / "pickles" / "lsmdc_train.pkl")
    (tmp_path / "nothing").mkdir()
    for name, part in (
        ("made", f"data convert clips {tmp_path / 'made'} --to made.npz"),
        ("exported", f"continual-mm compare {tmp_path / 'exported'}"),
        ("runs", f"continual-mm compare {tmp_path / 'runs'}"),
        ("films", f"data extract {tmp_path / 'films'} --to"),
        ("listed", f"data extract {tmp_path / 'listed' / 'clips.csv'} --to"),
        ("howto", f"--features {tmp_path / 'howto'}"),
        ("packs", f"name it: {tmp_path / 'packs' / 'mine.npz'}"),
        ("stores", f"name it: {tmp_path / 'stores' / 'mine'}"),
        ("pickles", "convert lsmdc --train"),
        ("nothing", "is an empty folder"),
    ):
        with pytest.raises(InputError) as caught:
            registry.load(name, folder=tmp_path)
        assert part in str(caught.value), name


def test_what_may_be_a_dataset_is_left_to_its_reader(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine_2d.npz", ids=np.array(["a"]), features=np.ones((1, 2)))
    put(tmp_path / "tables" / "train.parquet")
    put(tmp_path / "tables" / "a.wav")
    put(tmp_path / "rows" / "train.jsonl", '{"x": [1.0]}')
    for name in "mine_2d.npz", "tables", "rows":
        assert strangers.recognised(tmp_path / name) is None


def test_a_command_can_be_copied_whatever_the_path(tmp_path: Path) -> None:
    put(tmp_path / "my clips" / "a.mkv")
    told = strangers.recognised(tmp_path / "my clips")
    assert told is not None
    assert f"data extract '{tmp_path / 'my clips'}' --to" in told.remedy
