"""HowTo100M's files, written here by numpy and pickle alone, and the clips cut out of them."""

import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from continual_mm.preparation.formats.features import inside, read_list
from continual_mm.preparation.formats.howto100m import (
    CaptionFile,
    Video,
    chosen_captions,
    clips,
    videos,
)
from continual_mm.preparation.formats.recipe import Recipe, Report
from continual_mm.preparation.formats.word_vectors import WordVectors
from continual_mm.system.errors import InputError

WORDS = {"salt": 0, "add": 1, "stir": 2, "it's": 3}
VECTORS = WordVectors(WORDS, np.random.default_rng(9).normal(size=(4, 5)).astype(np.float32))
SECONDS = {"jEyaTUyJ-rs": 40, "bbbbbbbbbbb": 25, "ccccccccccc": 30}
PATHS = ("food/video_j/jEyaTUyJ-rs", "home/bbbbbbbbbbb", "ccccccccccc")
CAPTIONS = {
    "jEyaTUyJ-rs": {
        "start": [0.0, 3.2, 11.5, 30.0],
        "end": [3.1, 8.0, 12.0, 39.5],
        "text": ["Add the salt", "it's what you stir", "stir; stir it's", "Thanks"],
    },
    "bbbbbbbbbbb": {"start": [1.0], "end": [2.0], "text": ["salt and add"]},
    "ccccccccccc": {"start": [2.0, 40.0], "end": [3.0, 41.0], "text": ["add", "nothing"]},
}


def write_dataset(folder: Path) -> Path:
    """Three videos in exactly the published layout; returns the path list."""
    rng = np.random.default_rng(0)
    for path in PATHS:
        name = path.split("/")[-1]
        place, sounds = folder / "features" / path, folder / "audio" / path
        place.mkdir(parents=True)
        sounds.mkdir(parents=True)
        seconds = SECONDS[name]
        two, three = rng.normal(size=(seconds, 6)), rng.normal(size=(int(seconds * 1.5), 4))
        np.savez(place / f"{name}_2d.npz", features=two.astype(np.float32))
        np.savez_compressed(place / f"{name}_3d.npz", features=three.astype(np.float16))
        mel = rng.uniform(-80, 0, size=(3, seconds * 100 + 1)).astype(np.float16)
        np.savez(sounds / f"{name}_spec.npz", mel)
    (folder / "caption.pickle").write_bytes(pickle.dumps(CAPTIONS))
    listed = folder / "paths.csv"
    listed.write_text("path\n" + "\n".join([PATHS[0], PATHS[1], f"None/{PATHS[2]}"]) + "\n")
    return listed


def read(folder: Path, report: Report | None = None) -> list[Video]:
    return list(
        videos(
            read_list(folder / "paths.csv"),
            CaptionFile(folder / "caption.pickle"),
            features=folder / "features",
            audio=folder / "audio",
            report=report or Report(),
        )
    )


def described(folder: Path, path: str, caption: int, frames: int, words: int) -> dict[str, Any]:
    """One published item, written down from the specification of the published reader."""
    name = path.split("/")[-1]
    said = CAPTIONS[name]
    first = last = caption
    start, end, text = said["start"][caption], said["end"][caption], said["text"][caption]
    while end - start < 10.0:
        candidates = []
        if first > 0:
            candidates.append((end - said["start"][first - 1], 0))
        if last < len(said["start"]) - 1:
            candidates.append((said["end"][last + 1] - start, 1))
        if not candidates:
            break
        if min(candidates)[1] == 0:
            first -= 1
            start, text = said["start"][first], text + " " + said["text"][first]
        else:
            last += 1
            end, text = said["end"][last], text + " " + said["text"][last]
    video = []
    for kind, rate, size in (("2d", 1, 6), ("3d", 1.5, 4)):
        rows = np.load(folder / "features" / path / f"{name}_{kind}.npz")["features"]
        rows = rows.astype(np.float64)[int(start * rate) : int(end * rate) + 1]
        top = rows.max(0) if len(rows) else np.zeros(size)
        video += list(top / (np.linalg.norm(top) or 1))
    mel = np.load(folder / "audio" / path / f"{name}_spec.npz")["arr_0"]
    mel = mel[:, math.floor((start * 16000 - 200) / 160) : math.floor((end * 16000 - 200) / 160)]
    audio = np.zeros((3, frames))
    audio[:, : min(frames, mel.shape[1])] = mel[:, :frames]
    known = [WORDS[word] for word in re.findall(r"[\w']+", text) if word in WORDS][:words]
    vectors = np.zeros((words, 5))
    vectors[: len(known)] = VECTORS.values[known]
    return {"video": video, "audio": audio.T, "text": vectors, "nframes": mel.shape[1]}


def test_reference_clips_are_those_of_the_published_reader(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    recipe = Recipe(mode="reference", audio_frames=1050, max_words=5)
    seen = 0
    for path, video in zip(PATHS, read(tmp_path), strict=True):
        for record in clips(video, range(len(video.captions)), VECTORS, recipe):
            caption = int(str(record["ids"]).split("/")[1])
            expected = described(tmp_path, path, caption, 1050, 5)
            assert record["nframes"] == expected.pop("nframes")
            assert record["group"] == video.name
            for key, value in expected.items():
                np.testing.assert_allclose(record[key], value, atol=2e-4, err_msg=key)
            seen += 1
    assert seen == 7


def test_a_clip_from_the_first_second_on_has_no_sound_in_reference_and_all_in_robust(
    tmp_path: Path,
) -> None:
    write_dataset(tmp_path)
    video = read(tmp_path)[0]
    (published,) = clips(video, [0], VECTORS, Recipe(mode="reference"))
    assert published["nframes"] == 0
    assert not np.any(published["audio"])
    (mended,) = clips(video, [0], VECTORS, Recipe())
    mel = np.load(tmp_path / "audio" / PATHS[0] / "jEyaTUyJ-rs_spec.npz")["arr_0"]
    end = math.floor((12.0 * 16000 - 200) / 160)
    np.testing.assert_array_equal(mended["audio"], mel[:, : min(end, 1000)].T.astype(np.float32))


def test_robust_clips_hold_words_in_their_order_and_nothing_that_is_filled_up(
    tmp_path: Path,
) -> None:
    write_dataset(tmp_path)
    first, second, third = read(tmp_path)
    (clip,) = clips(first, [1], VECTORS, Recipe(), split=2)
    assert clip["text_raw"] == "Add the salt it's what you stir stir; stir it's"
    rows = [1, 0, 3, 2, 2, 2, 3]
    np.testing.assert_array_equal(clip["text"], VECTORS.values[rows])
    assert (clip["ids"], clip["split"]) == ("jEyaTUyJ-rs/1", 2)
    assert "nframes" not in clip
    (short,) = clips(second, [0], VECTORS, Recipe())
    assert np.shape(short["audio"]) == (100, 3)
    (beyond,) = clips(third, [1], VECTORS, Recipe(min_time=0))
    # The features end at 30 s, the caption begins at 40 s, and no word of it is known.
    assert set(beyond) == {"ids", "split", "group", "text_raw"}


def test_a_caption_chosen_again_makes_a_clip_of_another_name(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    names = [one["ids"] for one in clips(read(tmp_path)[1], [0, 0, 0], VECTORS, Recipe())]
    assert names == ["bbbbbbbbbbb/0", "bbbbbbbbbbb/0+1", "bbbbbbbbbbb/0+2"]


def test_choices_belong_to_seed_and_video_and_robust_repeats_none_early() -> None:
    for mode in ("reference", "robust"):
        first = chosen_captions(50, 32, video="a", seed=1, mode=mode)
        assert first == chosen_captions(50, 32, video="a", seed=1, mode=mode)
        assert first != chosen_captions(50, 32, video="b", seed=1, mode=mode)
        assert first != chosen_captions(50, 32, video="a", seed=2, mode=mode)
        assert len(first) == 32
        assert set(first) <= set(range(50))
    assert len(set(chosen_captions(50, 32, video="a", seed=1, mode="robust"))) == 32
    few = chosen_captions(3, 8, video="a", seed=1, mode="robust")
    assert sorted(few[:3]) == sorted(few[3:6]) == [0, 1, 2]
    assert len(set(few[6:])) == 2


def test_reference_chooses_uniformly_and_with_replacement() -> None:
    chosen = [
        row
        for seed in range(300)
        for row in chosen_captions(4, 4, video="a", seed=seed, mode="reference")
    ]
    counts = np.bincount(chosen, minlength=4)
    # Four binomials of 1200 draws at 1/4: standard deviation 15.
    assert np.abs(counts - 300).max() < 75
    assert any(
        len(set(chosen_captions(4, 4, video="a", seed=seed, mode="reference"))) < 4
        for seed in range(9)
    )


BREAKS = {
    "missing": lambda file: file.unlink(),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:100]),
    "empty": lambda file: file.write_bytes(b""),
    "no array of that name": lambda file: np.savez(file, other=np.zeros((2, 2))),
    "not finite": lambda file: np.savez(file, features=np.full((2, 6), np.nan)),
    "beyond float32": lambda file: np.savez(file, features=np.full((2, 6), 1e300)),
    "integers": lambda file: np.savez(file, features=np.zeros((2, 6), int)),
    "one axis": lambda file: np.savez(file, features=np.zeros(6)),
    "no features": lambda file: np.savez(file, features=np.zeros((6, 0))),
    "pickled": lambda file: np.savez(file, features=np.array([{}, []], dtype=object)),
}


@pytest.mark.parametrize("broken", sorted(BREAKS))
def test_a_broken_file_ends_the_job_or_is_listed_as_asked(tmp_path: Path, broken: str) -> None:
    write_dataset(tmp_path)
    file = tmp_path / "features" / PATHS[1] / "bbbbbbbbbbb_2d.npz"
    BREAKS[broken](file)
    with pytest.raises(InputError) as caught:
        read(tmp_path)
    (problem,) = caught.value.problems
    assert problem.place.startswith(str(file))
    report = Report(skip=True)
    assert [video.name for video in read(tmp_path, report)] == ["jEyaTUyJ-rs", "ccccccccccc"]
    assert report.skipped == [problem]


def test_a_video_without_captions_is_listed(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    kept = {name: CAPTIONS[name] for name in list(CAPTIONS)[1:]}
    (tmp_path / "caption.pickle").write_bytes(pickle.dumps(kept))
    report = Report(skip=True)
    assert len(read(tmp_path, report)) == 2
    assert "video 'jEyaTUyJ-rs': has no captions" in str(report.skipped[0])


def test_float32_spectrograms_are_read_like_float16_ones(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    file = tmp_path / "audio" / PATHS[1] / "bbbbbbbbbbb_spec.npz"
    mel = np.load(file)["arr_0"]
    (before,) = clips(read(tmp_path)[1], [0], VECTORS, Recipe())
    np.savez(file, mel.astype(np.float32))
    (after,) = clips(read(tmp_path)[1], [0], VECTORS, Recipe())
    np.testing.assert_array_equal(before["audio"], after["audio"])


def test_original_lists_name_videos_by_their_id(tmp_path: Path) -> None:
    listed = tmp_path / "original.csv"
    listed.write_text(
        "video_id,category_1,category_2,rank,task_id,path\n"
        "aaa,Food,Soup,1,3,food/aaa.mp4\nbbb,Food,Soup,2,3,food/bbb\nccc,Food,Soup,3,3,\n"
    )
    assert read_list(listed) == ("food/aaa", "food/bbb", "ccc")
    listed.write_text("video_id\nbbb\n\n")
    assert read_list(listed) == ("bbb",)
    listed.write_text("name\nbbb\n")
    with pytest.raises(InputError, match="has the columns name"):
        read_list(listed)
    with pytest.raises(InputError, match="cannot be read"):
        read_list(tmp_path / "missing.csv")


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../outside", "a/../../outside", "..", "", "a\\..\\b", "C:/x", "a\0b"]
)
def test_no_path_of_a_list_leads_out_of_the_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(InputError, match="does not name a file below it"):
        inside(tmp_path, path)


def test_no_link_leads_out_of_the_folder(tmp_path: Path) -> None:
    folder, outside = tmp_path / "in", tmp_path / "out"
    (folder / "real").mkdir(parents=True)
    outside.mkdir()
    (folder / "linked").symlink_to(outside)
    (folder / "near").symlink_to(folder / "real")
    with pytest.raises(InputError, match="leads out of it"):
        inside(folder, "linked/video_2d.npz")
    assert inside(folder, "near/video_2d.npz") == folder / "near" / "video_2d.npz"


def test_a_hostile_list_is_refused_or_listed(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    (tmp_path / "paths.csv").write_text(f"path\n../audio/{PATHS[1]}\n{PATHS[1]}\n")
    report = Report(skip=True)
    assert [video.name for video in read(tmp_path, report)] == ["bbbbbbbbbbb"]
    assert len(report.skipped) == 1


@pytest.mark.parametrize(
    "wrong", [{"mode": "other"}, {"min_time": -1}, {"audio_frames": 0}, {"rate_2d": float("nan")}]
)
def test_recipes_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Recipe(**wrong)


@pytest.mark.parametrize(
    ("kind", "what"), [("2d", "2D features"), ("3d", "3D features"), ("spec", "sound")]
)
def test_a_missing_file_is_told_with_its_place_and_what_it_is(
    tmp_path: Path, kind: str, what: str
) -> None:
    write_dataset(tmp_path)
    folder = tmp_path / ("audio" if kind == "spec" else "features")
    file = folder / PATHS[1] / f"bbbbbbbbbbb_{kind}.npz"
    file.unlink()
    with pytest.raises(InputError) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"{file}: is not there: the {what} of a video")


def test_an_odd_caption_leaves_its_video_where_such_are_skipped(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    odd = CAPTIONS["bbbbbbbbbbb"] | {"start": [1.0, 5.0], "end": [2.0, 4.0], "text": ["add", "a"]}
    (tmp_path / "caption.pickle").write_bytes(pickle.dumps(CAPTIONS | {"bbbbbbbbbbb": odd}))
    report = Report(skip=True)
    assert [len(one.captions) for one in read(tmp_path, report)][1] == 1
    assert len(report.skipped) == 1
