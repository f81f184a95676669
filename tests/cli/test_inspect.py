"""From published files and raw clips to datasets, by the commands that a user types."""

import json
import pickle
import shutil
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from continual_mm.cli.app import main
from continual_mm.cli.progress import ClipBar
from continual_mm.data import registry
from continual_mm.data.dataset import Dataset
from continual_mm.data.store.writer import write_store
from continual_mm.definitions.modality import Kind, Modality

DICE = np.random.default_rng
WORDS = ("add", "the", "salt", "stir", "apply", "eye", "makeup", "brush", "hair")
SECONDS = {"aaaaaaaaaaa": 40, "bbbbbbbbbbb": 25, "ccccccccccc": 30}


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run a command in an empty folder; gives what it said and its exit code."""
    monkeypatch.chdir(tmp_path)

    def ask(*arguments: str) -> SimpleNamespace:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        out, err = capsys.readouterr()
        return SimpleNamespace(code=caught.value.code, out=out, err=err)

    return ask


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """GloVe's form, five numbers for each word."""
    rows = DICE(9).normal(size=(len(WORDS), 5)).round(3)
    lines = [f"{word} {' '.join(map(str, row))}" for word, row in zip(WORDS, rows, strict=True)]
    (tmp_path / "words.txt").write_text("\n".join(lines) + "\n")
    return tmp_path / "words.txt"


@pytest.fixture
def howto100m(tmp_path: Path) -> Path:
    """Three videos as they are published."""
    rng = DICE(0)
    captions = {
        "aaaaaaaaaaa": {
            "start": [0.0, 3.2, 11.5, 30.0],
            "end": [3.1, 8.0, 12.0, 39.5],
            "text": ["add the salt", "stir", "stir; stir it", "thanks"],
        },
        "bbbbbbbbbbb": {"start": [1.0], "end": [2.0], "text": ["salt and add"]},
        "ccccccccccc": {"start": [2.0, 20.0], "end": [3.0, 29.0], "text": ["add", "the hair"]},
    }
    for name, seconds in SECONDS.items():
        place = tmp_path / "features" / name
        place.mkdir(parents=True)
        np.savez(place / f"{name}_2d.npz", features=rng.normal(size=(seconds, 6)))
        np.savez(place / f"{name}_3d.npz", features=rng.normal(size=(seconds * 3 // 2, 4)))
        mel = rng.uniform(-80, 0, size=(3, seconds * 100 + 1)).astype(np.float16)
        np.savez(place / f"{name}_spec.npz", mel)
    (tmp_path / "caption.pickle").write_bytes(pickle.dumps(captions))
    (tmp_path / "paths.csv").write_text("path\n" + "\n".join(SECONDS) + "\n")
    return tmp_path


HOWTO100M = (
    *("data", "convert", "howto100m", "paths.csv", "--captions", "caption.pickle"),
    *("--features", "features", "--vectors", "words.txt", "--to", "store", "--dtype", "float32"),
)


def taken(dataset: Dataset, modality: str, row: int) -> np.ndarray:
    """What an item has, without padding."""
    values, lengths = dataset.columns[modality].take(torch.tensor([row]))
    item = values[0].numpy()
    return item if lengths is None else item[: int(lengths[0])]


def test_whole_videos_are_held_out(said, howto100m: Path, words: Path) -> None:
    told = said(*HOWTO100M, "--validation", "0.3", "--test", "0.4")
    assert told.code == 0
    dataset = registry.load("store", standardise=False, splits=())
    assert dataset.group is not None
    for group in set(dataset.group.tolist()):
        assert len(set(dataset.split[dataset.group == group].tolist())) == 1
    assert "items with video, audio, text" in told.out


def test_a_broken_video_ends_the_job_or_is_listed_as_asked(
    said, howto100m: Path, words: Path
) -> None:
    (howto100m / "features" / "bbbbbbbbbbb" / "bbbbbbbbbbb_2d.npz").write_bytes(b"PK\x03\x04broken")
    told = said(*HOWTO100M)
    assert told.code == 2
    assert "bbbbbbbbbbb_2d.npz" in told.err
    assert not Path("store").exists()
    told = said(*HOWTO100M, "--skip")
    assert told.code == 0
    assert "left out: 1 in all, listed in store.left-out.csv" in told.err
    assert "bbbbbbbbbbb_2d.npz" in Path("store.left-out.csv").read_text()
    assert len(registry.load("store", standardise=False, splits=())) == 6


def test_a_video_that_float16_cannot_hold_ends_the_job_or_is_listed_as_asked(
    said, howto100m: Path, words: Path
) -> None:
    place = howto100m / "features" / "bbbbbbbbbbb" / "bbbbbbbbbbb_2d.npz"
    np.savez(place, features=np.full((25, 6), 7e4))
    asked = [argument.replace("float32", "float16") for argument in HOWTO100M]
    told = said(*asked)
    assert (told.code, "70000 is beyond float16" in told.err) == (2, True)
    told = said(*asked, "--skip")
    assert told.code == 0
    assert "recording 'bbbbbbbbbbb'" in Path("store.left-out.csv").read_text()
    assert len(registry.load("store", standardise=False, splits=())) == 6


def test_a_test_set_alone_is_inspected(said, tmp_path: Path) -> None:
    items = [{"ids": str(k), "split": 2, "film": np.ones(3)} for k in range(2)]
    write_store(items, tmp_path / "alone", layout=(Modality("film", Kind.VECTOR, (3,)),))
    told = said("data", "inspect", "alone", "--picture", "alone.png")
    assert told.code == 0
    assert "2 items (0 training, 0 validation, 2 test)" in told.out
    assert "- there is no training item" in told.out
    assert Path("alone.png").is_file()


def clip(name: str, seed: int, *, pooled: str = "", caption: str = "caption") -> dict[str, Any]:
    rng = DICE(seed)
    sound = rng.uniform(-80, 0, size=(3, 5 + seed % 7)).astype(np.float32)
    return {
        "id": name,
        f"2d{pooled}": rng.normal(size=6).astype(np.float32),
        f"3d{pooled}": rng.normal(size=4).astype(np.float32),
        "audio": torch.from_numpy(sound),
        caption: "add the salt" if seed % 2 else "stir the salt",
    }


def test_youcook2_becomes_a_pack_with_validation_videos_held_out(said, words: Path) -> None:
    train = [clip(f"video{n // 3:06d}_{n}", n) for n in range(60)]
    test = [clip(f"tests{n:06d}_0", n) for n in range(5)]
    Path("train.pkl").write_bytes(pickle.dumps(train))
    Path("val.pkl").write_bytes(pickle.dumps(test))
    told = said(
        *("data", "convert", "youcook2", "--train", "train.pkl", "--test", "val.pkl"),
        *("--vectors", "words.txt", "--to", "yc2.npz", "--validation", "0.3"),
    )
    assert told.code == 0
    dataset = registry.load("yc2.npz")
    training, validation, held = dataset.card.items
    assert (training + validation, held) == (60, 5)
    assert 0 < validation < 30
    assert dataset.group is not None
    assert not {*dataset.group[dataset.split == 0]} & {*dataset.group[dataset.split == 1]}
    video = taken(registry.load("yc2.npz", standardise=False), "video", 0)
    first = np.concatenate(
        [part / np.linalg.norm(part) for part in (train[0]["2d"], train[0]["3d"])]
    )
    np.testing.assert_allclose(video, first, atol=1e-3)


def test_clips_that_msrvtt_lacks_are_told_and_a_test_set_alone_will_do(said, words: Path) -> None:
    test = [clip(f"video{n}", n, pooled="_pooled", caption="eval_caption") for n in range(8)]
    Path("test.pkl").write_bytes(pickle.dumps(test))
    told = said(
        *("data", "convert", "msrvtt", "--test", "test.pkl"),
        *("--vectors", "words.txt", "--to", "mine"),
    )
    assert told.code == 0
    assert "992 of 1,000 clips are not there; set expected = 1000" in told.out
    assert registry.card("mine", splits=["test"]).items == (0, 0, 8)


def test_a_hostile_pickle_is_refused_and_runs_nothing(said, words: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.write_text, (Path("marker"), "ran")

    Path("test.pkl").write_bytes(pickle.dumps([Hostile()]))
    told = said(
        *("data", "convert", "lsmdc", "--test", "test.pkl"),
        *("--vectors", "words.txt", "--to", "lsmdc.npz"),
    )
    assert told.code == 2
    assert "test.pkl" in told.err
    assert not Path("marker").exists()


def test_class_names_of_ucf101_are_items_of_text_alone(said, words: Path) -> None:
    names = ("ApplyEyeMakeup", "BrushHair")
    entries = [
        {key: value for key, value in clip(f"v{n}", n, pooled="_pooled").items() if key != "id"}
        | {"video": f"v{n}", "class": names[n % 2], "training": 1 if n < 20 else 2}
        | {"has_audio": True, "audio": DICE(n).uniform(-80, 0, size=(3, 9)).astype(np.float32)}
        for n in range(26)
    ]
    Path("ucf.pkl").write_bytes(pickle.dumps(entries))
    told = said(
        *("data", "convert", "ucf101", "ucf.pkl", "--vectors", "words.txt", "--to", "ucf.npz"),
        *("--validation", "0.3"),
    )
    assert told.code == 0
    dataset = registry.load("ucf.npz", standardise=False)
    alone = dataset.columns["text"].present & ~dataset.columns["video"].present
    assert dataset.text is not None
    assert dataset.label is not None
    assert dataset.text[alone].tolist() == ["apply eye makeup", "brush hair"]
    assert dataset.label[alone].tolist() == [0, 1]
    tested = (dataset.split == 2) & ~alone
    assert tested.sum() == 6
    assert not dataset.columns["text"].present[tested].any()


def test_word_vectors_are_trained_on_captions_and_used(said, howto100m: Path) -> None:
    told = said("data", "vectors", "caption.pickle", "--to", "own.bin", "--features", "7")
    assert told.code == 0
    assert "own.bin: 8 words of 7 numbers" in told.out
    asked = [argument.replace("words.txt", "own.bin") for argument in HOWTO100M]
    assert said(*asked).code == 0
    assert registry.card("store", splits=())["text"].features == 7
    told = said("data", "vectors", "caption.pickle", "--to", "own.bin")
    assert (told.code, "is there already" in told.err) == (2, True)


def test_raw_clips_become_a_store_that_a_scenario_takes(said, media_file, tmp_path: Path) -> None:
    rng = DICE(1)
    rows = []
    for number in range(12):
        wave = rng.normal(scale=0.1, size=(1, 8000)).astype(np.float32)
        media_file(tmp_path / f"clip{number}.mkv", audio=wave, sample_rate=16_000)
        split = ("train", "train", "train", "validation", "test", "test")[number % 6]
        rows.append({"path": f"clip{number}.mkv", "text": f"add salt {number}", "split": split})
    (tmp_path / "clips.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "clip11.mkv").write_bytes(b"no film")
    making = ("--make", "audio=audio", "--make", "text=text", "--workers", "0")
    told = said("data", "extract", "clips.jsonl", "--to", "made", *making)
    assert told.code == 1
    assert "made: 11 clips have features" in told.out
    assert "clip11" in (tmp_path / "made" / "report.csv").read_text()
    assert said("data", "convert", "clips", "made", "--to", "store").code == 0
    told = said("data", "inspect", "store", "--format", "json")
    assert [one["present"] for one in json.loads(told.out)["modalities"]] == [[6, 2, 3]] * 2
    (tmp_path / "mine.toml").write_text(
        'dataset = "store"\n[space]\ndim = 8\nclusters = 0\n[training]\nsteps = 1\nbatch_size = 4\n'
        '[[stage]]\nadd = ["audio", "text"]\n'
    )
    assert said("run", "mine.toml", "--no-board").code == 0


def test_ctrl_c_keeps_finished_clips_and_a_reserved_name_is_refused_at_once(
    said, media_file, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        wave = DICE(1).normal(scale=0.1, size=(1, 8000)).astype(np.float32)
        media_file(tmp_path / f"{name}.wav", audio=wave, sample_rate=16_000)
    asked = ("data", "extract", ".", "--workers", "0", "--to", "made", "--make")
    told = said(*asked, "label=audio")
    assert (told.code, "what datasets call something else" in told.err) == (2, True)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ClipBar, "finished", interrupted)
        told = said(*asked, "audio=audio")
    assert told.code == 130
    assert told.err.splitlines()[-1] == (
        "continual-mm: stopped; finished clips are kept in made, "
        "the same command goes on from there"
    )
    told = said(*asked, "audio=audio")
    assert told.code == 0
    assert "1 of 2 clips are there already" in told.err
    assert told.err.splitlines()[-1] == "2 of 2 clips are done"


def test_the_original_experiment_runs_by_name_on_whatever_was_converted(
    said, howto100m: Path, words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTINUAL_MM_DATA", "brought")
    refused = said("run", "howto100m_av_t", "--no-board")
    assert refused.code == 2
    assert "loading torch" not in refused.err
    checked = said("validate", "howto100m_av_t")
    assert checked.code == 0
    for name in ("howto100m", "youcook2", "msrvtt"):
        lacking = f"is not in brought/{name}; convert the published files"
        assert lacking in refused.err
        assert lacking in checked.out
    asked = list(HOWTO100M)
    del asked[asked.index("--to") :]
    for shares in product(("0.2", "0.4", "0.6"), repeat=2):
        converted = said(*asked, "--reference", "--validation", shares[0], "--test", shares[1])
        if converted.code == 0 and 0 not in registry.card("howto100m", splits=()).items:
            break
        shutil.rmtree("brought", ignore_errors=True)
    youcook2 = [clip(f"tests{n // 2:06d}_{n}", n) for n in range(6)]
    msrvtt = [clip(f"v{n}", n, pooled="_pooled", caption="eval_caption") for n in range(4)]
    for name, clips_of in {"youcook2": youcook2, "msrvtt": msrvtt}.items():
        Path("test.pkl").write_bytes(pickle.dumps(clips_of))
        converting = ("data", "convert", name, "--test", "test.pkl", "--vectors", "words.txt")
        assert said(*converting, "--reference").code == 0
    small = {
        "training.steps": 1,
        "training.batch_size": 4,
        "space.clips": 2,
        "space.dim": 8,
        "space.width": 4,
        "space.depth": 1,
        "space.reconstruction_width": 4,
        "space.clusters": 2,
        "space.queue_batches": 1,
    }
    settings = [part for key, value in small.items() for part in ("--set", f"{key}={value}")]
    run = said("run", "howto100m_av_t", "--no-board", *settings)
    assert run.code == 0, run.err
    for name, queries in {"youcook2": 3350, "msrvtt": 1000}.items():
        told = said("compare", "runs", "--protocol", name).out
        assert f"howto100m_av_t, {name}: item to item, {queries} queries" in told
