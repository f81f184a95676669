"""A folder for each modality with a file for each item becomes a dataset."""

import sys

import numpy as np
import pytest
import torch

from continual_mm.data.registry import load
from continual_mm.definitions.modality import Kind
from continual_mm.preparation.formats import arrays
from continual_mm.system.errors import InputError


def write(path, shape=(6,), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng([seed, len(path.stem)]).normal(size=shape).astype(np.float32)
    np.save(path, values)
    return values


@pytest.fixture
def msrvtt(tmp_path):
    """Clips of all splits of MSR-VTT; the last has no sound."""
    folder, numbers = tmp_path / "features", (0, 1, 6512, 6513, 7009, 7010, 9999)
    sights = {n: write(folder / "msrvtt_video" / f"video{n}.npy", (1, 6), n) for n in numbers}
    sounds = {n: write(folder / "audio" / f"video{n}.npy", (6,), n + 1) for n in numbers[:-1]}
    return folder, sights, sounds


def test_clips_of_msrvtt_have_its_splits_and_what_is_there_of_them(msrvtt, tmp_path, typed):
    folder, sights, sounds = msrvtt
    pack = tmp_path / "clips.npz"
    ended = typed("data", "convert", "msrvtt_imagebind", folder, "--to", pack, "--dtype", "float32")
    assert not ended.code, ended.err
    dataset = load(str(pack), standardise=False)
    split = dict(zip((str(name) for name in dataset.ids), dataset.split.tolist(), strict=True))
    assert split == {
        **dict.fromkeys(("video0", "video1", "video6512"), 0),
        **dict.fromkeys(("video6513", "video7009"), 1),
        **dict.fromkeys(("video7010", "video9999"), 2),
    }
    rows = [int(str(name).removeprefix("video")) for name in dataset.ids]
    assert np.array_equal(dataset.columns["video"].values, [sights[n][0] for n in rows])
    present = dataset.columns["audio"].present
    assert [n for n, there in zip(rows, present, strict=True) if not there] == [9999]
    expected = [sounds[n] for n in rows if n in sounds]
    assert np.array_equal(dataset.columns["audio"].values[present], expected)


def test_any_names_will_do_and_shares_are_held_out_where_no_folder_says_so(tmp_path, typed):
    for n in range(40):
        write(tmp_path / "in" / "touch" / f"{n:02d}.npy")
        write(tmp_path / "in" / "smells" / f"{n:02d}.npy", (n % 5 + 2, 3))
    words = ("--modality", "touch", "--modality", "smell", "--to", tmp_path / "out")
    ended = typed("data", "convert", "arrays", tmp_path / "in", *words, "--test", 0.2)
    assert not ended.code, ended.err
    dataset = load(str(tmp_path / "out"), standardise=False)
    assert len(dataset) == 40
    assert set(dataset.split) == {0, 1, 2}
    kinds = {one.name: one.kind for one in dataset.card.modalities}
    assert kinds == {"touch": Kind.VECTOR, "smell": Kind.FRAMES}
    _, lengths = dataset.columns["smell"].take(torch.arange(40))
    assert sorted(set(lengths.tolist())) == [2, 3, 4, 5, 6]


def test_what_is_not_read_and_what_decides_a_split_by_a_word_is_told(tmp_path, typed):
    for n in range(30):
        write(tmp_path / "in" / "video" / f"{n:02d}.npy")
    write(tmp_path / "in" / "video_test_new" / "x.npy")
    write(tmp_path / "in" / "sounds" / "00.npy")
    words = ("--modality", "video", "--to", tmp_path / "out.npz")
    ended = typed("data", "convert", "arrays", tmp_path / "in", *words)
    assert "not read, since no folder is called as a modality: sounds/00.npy" in ended.out
    told = "taken for a split by a word in a folder's name: video_test_new (test)"
    assert told in ended.out


def test_folders_that_are_called_as_splits_are_those(tmp_path):
    for split, n in (("train", 0), ("val", 1), ("test", 2)):
        write(tmp_path / split / "video" / f"{n}.npy")
    items = arrays.files(tmp_path, ["video"])
    assert arrays.splits(items, tmp_path) == {"0": 0, "1": 1, "2": 2}


def test_splits_of_msrvtt_are_those_of_msrvtt_only(tmp_path):
    for n in (0, 6513, 7010):
        write(tmp_path / "video" / f"video{n}.npy")
    items = arrays.files(tmp_path, ["video"])
    assert set(arrays.splits(items, tmp_path).values()) == {0}
    assert list(arrays.splits(items, tmp_path, msrvtt=True).values()) == [0, 1, 2]


def test_a_folder_may_be_called_as_any_modality_may(tmp_path):
    write(tmp_path / "optical_flow2" / "0.npy")
    write(tmp_path / "RGB" / "0.npy")
    items = arrays.files(tmp_path, ["optical_flow2", "RGB"])
    assert set(items["0"]) == {"optical_flow2", "RGB"}


def test_a_clip_of_one_frame_is_a_clip(tmp_path, typed):
    for n in range(40):
        write(tmp_path / "in" / "sight" / f"{n:02d}.npy", (n % 3 + 1, 4))
    words = ("data", "convert", "arrays", tmp_path / "in", "--modality", "sight", "--to")
    ended = typed(*words, tmp_path / "out")
    assert not ended.code, ended.err
    dataset = load(str(tmp_path / "out"), standardise=False)
    assert dataset.card.modalities[0].kind is Kind.FRAMES
    _, lengths = dataset.columns["sight"].take(torch.arange(40))
    assert lengths.tolist() == [n % 3 + 1 for n in range(40)]


def test_what_cannot_be_told_apart_is_refused(tmp_path):
    write(tmp_path / "video" / "a.npy")
    with pytest.raises(InputError, match=r"has no audio/<item>\.npy"):
        arrays.files(tmp_path, ["video", "audio"])
    write(tmp_path / "video" / "more" / "a.npy")
    with pytest.raises(InputError, match="video of item 'a' is there twice"):
        arrays.files(tmp_path, ["video"])
    write(tmp_path / "both" / "video-audio" / "b.npy")
    with pytest.raises(InputError, match="is in a folder of video and audio"):
        arrays.files(tmp_path / "both", ["video", "audio"])


def test_pickles_and_what_is_not_finite_are_refused_or_left_out(tmp_path, typed):
    for n in range(60):
        write(tmp_path / "in" / "video" / f"{n}.npy")
    np.save(tmp_path / "in" / "video" / "x.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "in" / "video" / "0.npy", np.full(6, np.nan))
    np.savez(tmp_path / "archive.npz", np.ones(6))
    (tmp_path / "archive.npz").rename(tmp_path / "in" / "video" / "y.npy")
    words = ("data", "convert", "arrays", tmp_path / "in", "--modality", "video", "--to")
    ended = typed(*words, tmp_path / "out.npz")
    assert ended.code == 2
    assert "0.npy: 6 of 6 values are not finite" in ended.err.replace("\n", " ")
    assert not (tmp_path / "out.npz").exists()
    assert not typed(*words, tmp_path / "out.npz", "--skip").code
    assert len(load(str(tmp_path / "out.npz"), standardise=False)) == 59


def test_the_extra_that_conversions_need_is_named_where_it_is_not_installed(
    tmp_path, typed, monkeypatch
):
    write(tmp_path / "in" / "touch" / "0.npy")
    monkeypatch.setitem(sys.modules, "datasets", None)
    for name in ("continual_mm.preparation.formats.hub", "continual_mm.data.hugging_face"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    words = ("--modality", "touch", "--to", tmp_path / "out")
    ended = typed("data", "convert", "arrays", tmp_path / "in", *words)
    assert ended.code == 2
    line = "datasets is not installed; pip install 'continual-mm[data]'"
    assert line in ended.err.replace("\n", " ")
