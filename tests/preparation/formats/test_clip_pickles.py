"""YouCook2, MSR-VTT and LSMDC, written here by pickle and torch alone, read back as published."""

import os
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate, normalize

from continual_mm.data.schema import Record
from continual_mm.preparation.formats.clip_pickles import (
    LSMDC,
    MSRVTT_TEST,
    MSRVTT_TRAIN,
    YOUCOOK2,
    ClipFile,
    ClipForm,
    open_clips,
)
from continual_mm.preparation.formats.recipe import Recipe, Report
from continual_mm.preparation.formats.word_vectors import WordVectors
from continual_mm.system.errors import InputError

WORDS = {"salt": 0, "add": 1, "stir": 2, "it's": 3}
VECTORS = WordVectors(WORDS, np.random.default_rng(9).normal(size=(4, 5)).astype(np.float32))
REFERENCE = Recipe(mode="reference", max_words=6)
IDS = ("GLd3aX16zBg_0", "GLd3aX16zBg_1", "xHr8X2Wpmno_0")


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def sound(frames: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(frames).uniform(-80, 0, (3, frames))).float()


def youcook2() -> list[dict[str, Any]]:
    captions = ("add the salt", "Stir, it's salt", "nothing known")
    clips: list[dict[str, Any]] = [
        {"id": name, "2d": numbers(6, seed=n), "3d": numbers(4, seed=n + 9), "caption": caption}
        | {"audio": sound(frames)}
        for n, (name, caption, frames) in enumerate(zip(IDS, captions, (7, 5200, 90), strict=True))
    ]
    clips[0] |= {"2d_full": numbers(3, 6), "3d_full": numbers(5, 4)}
    return clips


def msrvtt(caption: str, value: object) -> list[dict[str, Any]]:
    return [
        {
            "id": f"video{n}",
            "2d_pooled": numbers(6, seed=n),
            "3d_pooled": numbers(4, seed=n + 9),
            "2d": numbers(3, 6),
            "3d": numbers(5, 4),
            "audio": sound(50),
            caption: value,
        }
        for n in range(3)
    ]


def lsmdc() -> list[dict[str, Any]]:
    return [
        {
            "id": f"0001_American_Beauty_{n}",
            "2d_pooled": torch.from_numpy(numbers(6, seed=n)),
            "3d_pooled": torch.from_numpy(numbers(4, seed=n + 9)),
            "audio": sound(3072 + n),
            "caption": "add salt",
        }
        for n in range(3)
    ]


def opened(folder: Path, clips: object, form: ClipForm = YOUCOOK2, split: int = 2) -> ClipFile:
    path = folder / "clips.pkl"
    path.write_bytes(pickle.dumps(clips))
    return open_clips(path, form, split=split)


def records(clips: ClipFile, recipe: Recipe = REFERENCE, **options: Any) -> list[Record]:
    return list(clips.records(VECTORS, recipe, report=Report(), **options))


def described(clip: dict[str, Any], keys: tuple[str, str, str], frames: int) -> dict[str, Any]:
    """One published item, written down from the specification of the published reader."""
    halves = [normalize(torch.as_tensor(clip[key]), dim=0) for key in keys[:2]]
    audio = torch.as_tensor(clip["audio"])
    filled = torch.zeros(len(audio), frames)
    filled[:, : min(frames, audio.shape[1])] = audio[:, :frames]
    known = [WORDS[word] for word in re.findall(r"[\w']+", clip[keys[2]]) if word in WORDS]
    vectors = np.zeros((6, 5), np.float32)
    vectors[: len(known)] = VECTORS.values[known]
    return {
        "ids": clip["id"],
        "video": torch.cat(halves).numpy(),
        "audio": filled.T.numpy(),
        "nframes": audio.shape[1],
        "text": vectors,
        "text_raw": clip[keys[2]],
        "split": 2,
    }


PUBLISHED = {
    "youcook2": (youcook2, YOUCOOK2, ("2d", "3d", "caption"), 5120),
    "msrvtt": (
        lambda: msrvtt("eval_caption", "add it's salt"),
        MSRVTT_TEST,
        ("2d_pooled", "3d_pooled", "eval_caption"),
        3072,
    ),
    "lsmdc": (lsmdc, LSMDC, ("2d_pooled", "3d_pooled", "caption"), 3072),
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_reference_gives_the_published_items(tmp_path: Path, name: str) -> None:
    make, form, keys, frames = PUBLISHED[name]
    clips = make()
    read = records(opened(tmp_path, clips, form))
    assert len(read) == 3
    for clip, record in zip(clips, read, strict=True):
        expected = described(clip, keys, frames)
        if form is YOUCOOK2:
            assert record.pop("group") == clip["id"][:11]
        assert record.keys() == expected.keys()
        for key, value in expected.items():
            if isinstance(value, np.ndarray):
                np.testing.assert_allclose(record[key], value, rtol=1e-6, err_msg=key)
            else:
                assert record[key] == value, key


def test_robust_gives_sound_and_words_of_their_own_length(tmp_path: Path) -> None:
    clips = youcook2()
    first, second, third = records(opened(tmp_path, clips), Recipe())
    np.testing.assert_array_equal(first["audio"], clips[0]["audio"].numpy().T)
    assert np.shape(second["audio"]) == (5120, 3)
    np.testing.assert_array_equal(second["text"], VECTORS.values[[2, 3, 0]])
    assert "text" not in third
    assert "nframes" not in first


def test_arrays_and_tensors_in_each_others_place_are_read_alike(tmp_path: Path) -> None:
    clips = lsmdc()
    before = records(opened(tmp_path, clips, LSMDC))
    for clip in clips:
        clip["audio"] = clip["audio"].numpy()
        clip["2d_pooled"] = clip["2d_pooled"].numpy()
    after = records(opened(tmp_path, clips, LSMDC))
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one["audio"], other["audio"])
        np.testing.assert_array_equal(one["video"], other["video"])


def test_what_torch_saved_is_read_as_well(tmp_path: Path) -> None:
    path = tmp_path / "clips.pt"
    torch.save(lsmdc(), path)
    assert len(records(open_clips(path, LSMDC, split=0))) == 3


def test_features_over_time_are_given_where_a_clip_has_them(tmp_path: Path) -> None:
    clips = youcook2()
    first, *others = records(opened(tmp_path, clips), over_time=True)
    nearest = interpolate(torch.from_numpy(clips[0]["2d_full"]).T[None], size=5)[0].T
    halves = [normalize(nearest), normalize(torch.from_numpy(clips[0]["3d_full"]))]
    np.testing.assert_allclose(first["video_steps"], torch.cat(halves, 1).numpy(), rtol=1e-5)
    assert not any("video_steps" in other for other in others)


def test_one_of_several_captions_is_chosen_by_seed_and_clip(tmp_path: Path) -> None:
    captions = [f"caption {n}" for n in range(20)]
    clips = opened(tmp_path, msrvtt("caption", captions), MSRVTT_TRAIN)
    chosen = [record["text_raw"] for record in records(clips, seed=1)]
    assert chosen == [record["text_raw"] for record in records(clips, seed=1)]
    assert set(chosen) <= set(captions)
    drawn = {record["text_raw"] for seed in range(9) for record in records(clips, seed=seed)}
    assert len(drawn) > 5


def test_clips_that_are_not_there_count_as_misses(tmp_path: Path) -> None:
    path = tmp_path / "clips.pkl"
    clips = [msrvtt("eval_caption", "salt")[0] | {"id": f"video{n}"} for n in range(968)]
    clips[5] = clips[5] | {"2d_pooled": np.full(6, np.nan)}
    path.write_bytes(pickle.dumps(clips))
    test = open_clips(path, replace(MSRVTT_TEST, audio_frames=1), split=2)
    report = Report(skip=True)
    assert len(list(test.records(VECTORS, Recipe(), report=report))) == 967
    assert test.expected == 1000
    assert test.misses == 33
    missing = test.missing([f"video{n}" for n in range(1000)])
    assert missing == ("video5", *(f"video{n}" for n in range(968, 1000)))
    assert len(report.skipped) == 1


def _changed(key: str, value: object) -> Callable[[list[Any]], None]:
    return lambda clips: clips[1].update({key: value})


BREAKS: dict[str, tuple[Callable[[list[Any]], object], str]] = {
    "no dict": (lambda clips: clips.__setitem__(1, [1]), "item 1: is a list"),
    "no id": (lambda clips: clips[1].pop("id"), "item 1: has no 'id'"),
    "id of a number": (_changed("id", 3), "item 1: has no 'id'"),
    "id again": (_changed("id", IDS[0]), "item 1: is 'GLd3aX16zBg_0' like a clip before it"),
    "no features": (lambda clips: clips[1].pop("2d"), "key '2d': is missing; the clip has id, 3d"),
    "text as features": (_changed("2d", "salt"), "key '2d': is a str"),
    "integers": (_changed("2d", np.zeros(6, int)), "key '2d': is no float array"),
    "objects": (_changed("2d", np.array([None])), "key '2d': is no float array"),
    "two axes": (_changed("2d", np.zeros((2, 6))), "key '2d': has shape (2, 6)"),
    "nothing": (_changed("3d", np.zeros(0)), "key '3d': has shape (0,)"),
    "not finite": (
        _changed("2d", np.array([1, np.inf, np.nan])),
        "key '2d': 2 of 3 values are not finite",
    ),
    "sound of one axis": (_changed("audio", torch.zeros(9)), "key 'audio': has shape (9,)"),
    "endless sound": (
        _changed("audio", np.zeros((10**12, 0), np.float32)),
        "key 'audio': has shape (1000000000000, 0)",
    ),
    "sound not finite": (_changed("audio", torch.full((3, 2), torch.nan)), "6 of 6 values"),
    "caption of a number": (_changed("caption", 3), "key 'caption': is no text"),
    "no caption of many": (_changed("caption", []), "key 'caption': is no text"),
}


@pytest.mark.parametrize("broken", sorted(BREAKS))
def test_a_broken_clip_ends_the_job_or_is_listed_as_asked(tmp_path: Path, broken: str) -> None:
    clips = youcook2()
    change, told = BREAKS[broken]
    change(clips)
    file = opened(tmp_path, clips)
    with pytest.raises(InputError) as caught:
        records(file)
    (problem,) = caught.value.problems
    assert told in str(problem)
    assert problem.place.startswith(f"{file.path}, item 1")
    report = Report(skip=True)
    given = [one["ids"] for one in file.records(VECTORS, REFERENCE, report=report)]
    assert given == [IDS[0], IDS[2]]
    assert report.skipped == [problem]
    assert file.misses == 1


def test_what_is_no_list_of_clips_is_refused_as_a_whole(tmp_path: Path) -> None:
    for content in ({}, [], "clips", np.zeros(3)):
        with pytest.raises(InputError, match="it should be a list with a dict for each clip"):
            opened(tmp_path, content)


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_a_hostile_file_of_clips_is_refused_and_never_run(tmp_path: Path) -> None:
    target = tmp_path / "was-run"
    with pytest.raises(InputError, match="mkdir, which is not opened"):
        opened(tmp_path, [youcook2()[0] | {"audio": Malicious(target)}])
    assert not target.exists()
