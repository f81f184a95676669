"""HowTo100M's files, written here by numpy and pickle alone, and the clips around captions."""

import json
import math
import pickle
import random
import re

import numpy as np
import pytest
import torch

from continual_mm.data.splits import HeldOut
from continual_mm.data.store.reader import read_store
from continual_mm.preparation.formats.howto100m import (
    CaptionFile,
    Captions,
    Clip,
    feature_slice,
    frame_at,
    grown,
    read_list,
    videos,
    write_videos,
)
from continual_mm.preparation.formats.recipe import Recipe
from continual_mm.preparation.formats.records import VideoStore
from continual_mm.preparation.formats.word_vectors import WordVectors
from continual_mm.system.errors import InputError, Problems

librosa_core = pytest.importorskip("librosa.core")

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


def write_dataset(folder):
    """Three videos in exactly the published layout; returns the path list."""
    rng = np.random.default_rng(0)
    for path in PATHS:
        name = path.split("/")[-1]
        place, audio = folder / "features" / path, folder / "audio" / path
        place.mkdir(parents=True)
        audio.mkdir(parents=True)
        seconds = SECONDS[name]
        two, three = rng.normal(size=(seconds, 6)), rng.normal(size=(int(seconds * 1.5), 4))
        np.savez(place / f"{name}_2d.npz", features=two.astype(np.float32))
        np.savez_compressed(place / f"{name}_3d.npz", features=three.astype(np.float16))
        mel = rng.uniform(-80, 0, size=(3, seconds * 100 + 1)).astype(np.float16)
        np.savez(audio / f"{name}_spec.npz", mel)
    (folder / "caption.pickle").write_bytes(pickle.dumps(CAPTIONS))
    listed = folder / "paths.csv"
    listed.write_text("path\n" + "\n".join([PATHS[0], PATHS[1], f"None/{PATHS[2]}"]) + "\n")
    return listed


def read(folder, left_out=None):
    listed, captions = read_list(folder / "paths.csv"), CaptionFile(folder / "caption.pickle")
    places = {name: folder / name for name in ("features", "audio")}
    return list(videos(listed, captions, **places, left_out=left_out))


def stored(folder, recipe, name="store"):
    """Every item of a store of the videos, by its name: what it has, without padding."""
    store = VideoStore(folder=folder / name, vectors=VECTORS, recipe=recipe, dtype="float32")
    write_videos(read(folder), store, HeldOut(validation=0.0, test=0.0))
    dataset = read_store(store.folder, standardise=False, splits=())
    items = {}
    for row in range(len(dataset)):
        item = {"text_raw": dataset.text[np.array([row])][0]}
        for name, column in dataset.columns.items():
            if column.present[row]:
                values, lengths = column.take(torch.tensor([row]))
                item[name] = values[0].numpy()[: None if lengths is None else int(lengths[0])]
        items[str(dataset.ids[np.array([row])][0])] = item
    return items


def described_window(starts, ends, index, min_time):
    """The growth of a window as it is specified, word for word."""
    start, end, rows = starts[index], ends[index], [index]
    previous, following = index - 1, index + 1
    while end - start < min_time:
        has_previous, has_following = previous >= 0, following < len(starts)
        if has_previous and has_following:
            has_previous = end - starts[previous] <= ends[following] - start
        elif not (has_previous or has_following):
            break
        if has_previous:
            start = starts[previous]
            rows.append(previous)
            previous -= 1
        else:
            end = ends[following]
            rows.append(following)
            following += 1
    return start, end, rows


def published(folder, path, caption, recipe):
    """One published item, written down from the specification of the published reader."""
    name = path.split("/")[-1]
    captions = CAPTIONS[name]
    start, end, rows = described_window(captions["start"], captions["end"], caption, 10.0)
    text = " ".join(captions["text"][row] for row in rows)
    video = []
    for kind, rate, size in (("2d", 1, 6), ("3d", 1.5, 4)):
        features = np.load(folder / "features" / path / f"{name}_{kind}.npz")["features"]
        features = features.astype(np.float64)[int(start * rate) : int(end * rate) + 1]
        top = features.max(0) if len(features) else np.zeros(size)
        video += list(top / (np.linalg.norm(top) or 1))
    mel = np.load(folder / "audio" / path / f"{name}_spec.npz")["arr_0"]
    mel = mel[:, math.floor((start * 16000 - 200) / 160) : math.floor((end * 16000 - 200) / 160)]
    known = [WORDS[word] for word in re.findall(r"[\w']+", text) if word in WORDS]
    # The maximum over words is taken, and over frames the mean of the valid ones.
    vectors = np.concatenate([VECTORS.values[known[: recipe.max_words]], np.zeros((1, 5))])
    return {
        "video": video,
        "audio": mel.T[: recipe.audio_frames] if mel.size else np.zeros((1, 3)),
        "text": (vectors if len(known) < recipe.max_words else vectors[:-1]).max(axis=0),
        "text_raw": text,
    }


def test_reference_items_are_those_of_the_published_reader(tmp_path):
    write_dataset(tmp_path)
    recipe = Recipe(mode="reference", audio_frames=1050, max_words=5)
    items = stored(tmp_path, recipe)
    assert len(items) == 7
    for path in PATHS:
        name = path.split("/")[-1]
        for caption in range(len(CAPTIONS[name]["text"])):
            item = items[f"{name}/{caption}"]
            expected = published(tmp_path, path, caption, recipe)
            assert item["text_raw"] == expected["text_raw"]
            np.testing.assert_allclose(item["video"], expected["video"], atol=1e-6)
            np.testing.assert_array_equal(item["audio"], expected["audio"])
            np.testing.assert_allclose(item["text"].max(axis=0), expected["text"], rtol=1e-6)


def test_robust_items_keep_the_order_of_words_and_lack_what_is_missing(tmp_path):
    write_dataset(tmp_path)
    items = stored(tmp_path, Recipe())
    clip = items["jEyaTUyJ-rs/1"]
    assert clip["text_raw"] == "Add the salt it's what you stir stir; stir it's"
    np.testing.assert_array_equal(clip["text"], VECTORS.values[[1, 0, 3, 2, 2, 2, 3]])
    assert np.shape(items["bbbbbbbbbbb/0"]["audio"]) == (100, 3)
    mel = np.load(tmp_path / "audio" / PATHS[0] / "jEyaTUyJ-rs_spec.npz")["arr_0"]
    end = math.floor((12.0 * 16000 - 200) / 160)
    # From 0.0 on, which the published reader loses.
    np.testing.assert_array_equal(items["jEyaTUyJ-rs/0"]["audio"], mel[:, : min(end, 1000)].T)
    # The features end at 30 s, the caption begins at 40 s, and no word of it is known.
    alone = stored(tmp_path, Recipe(min_time=0), "alone")
    assert set(alone["ccccccccccc/1"]) == {"text_raw"}


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
def test_a_broken_file_ends_the_job_or_is_listed_as_asked(tmp_path, broken):
    write_dataset(tmp_path)
    file = tmp_path / "features" / PATHS[1] / "bbbbbbbbbbb_2d.npz"
    BREAKS[broken](file)
    with pytest.raises(InputError) as caught:
        read(tmp_path)
    (problem,) = caught.value.problems
    assert problem.place.startswith(str(file))
    left_out = Problems()
    assert [video.name for video in read(tmp_path, left_out)] == ["jEyaTUyJ-rs", "ccccccccccc"]
    assert left_out == [problem]


def test_original_lists_name_videos_by_their_id(tmp_path):
    listed = tmp_path / "original.csv"
    listed.write_text(
        "video_id,category_1,category_2,rank,task_id,path\n"
        "aaa,Food,Soup,1,3,food/aaa.mp4\nbbb,Food,Soup,2,3,food/bbb\nccc,Food,Soup,3,3,\n"
    )
    assert read_list(listed) == ("food/aaa", "food/bbb", "ccc")
    listed.write_text("video_id\nbbb\n\n")
    assert read_list(listed) == ("bbb",)
    listed.write_text("name\nbbb\n")
    with pytest.raises(InputError, match=r"has the columns name; .* named by --column path=NAME"):
        read_list(listed)
    assert read_list(listed, {"path": ["name"]}) == ("bbb",)
    listed.write_text("path\n a/b \n   \n")
    assert read_list(listed) == (" a/b ",)
    with pytest.raises(InputError, match="no such file"):
        read_list(tmp_path / "missing.csv")


@pytest.mark.parametrize(
    "wrong", [{"mode": "other"}, {"min_time": -1}, {"audio_frames": 0}, {"rate_2d": float("nan")}]
)
def test_recipes_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InputError):
        Recipe(**wrong)


def test_windows_grow_as_specified():
    rng = random.Random(0)
    for _ in range(300):
        starts = sorted(round(rng.uniform(0, 60), 1) for _ in range(rng.randint(1, 9)))
        # Captions of speech recognition overlap.
        ends = [round(start + rng.uniform(0, 8), 1) for start in starts]
        index, least = rng.randrange(len(starts)), rng.choice([0.0, 3.0, 10.0, 100.0])
        window = grown(starts, ends, index, min_time=least)
        rows = list(window.ordered_captions("reference"))
        assert (window.start, window.end, rows) == described_window(starts, ends, index, least)


def test_a_start_before_the_video_is_fixed_in_robust_only():
    for mode, start in (("reference", -3), ("robust", 0)):
        assert feature_slice(Clip(-3.0, 2.0, (0,)), rate=1.0, mode=mode) == slice(start, 3)
        assert feature_slice(Clip(2.5, 4.0, (0,)), rate=1.0, mode=mode) == slice(2, 5)


def test_spectrogram_frames_are_those_that_librosa_gives():
    times = np.concatenate([np.linspace(0, 0.05, 23), np.random.default_rng(0).uniform(0, 900, 99)])
    expected = librosa_core.time_to_frames(times, sr=16000, hop_length=160, n_fft=400)
    assert [frame_at(float(time)) for time in times] == expected.tolist()


VALID = {"start": [0, 2.5], "end": [2.0, 4], "text": ["add", "stir"]}
ARRAYS = {
    "start": np.array([0, 2.5], np.float32),
    "end": np.array([2, 4]),
    "text": np.array(["add", "stir"], dtype=object),
}


def captions_in(folder, content):
    path = folder / "caption.pickle"
    path.write_bytes(pickle.dumps(content))
    return path


def refusal(path, video="v"):
    with pytest.raises(InputError) as caught:
        CaptionFile(path).of(video)
    (problem,) = caught.value.problems
    assert problem.place.startswith(str(path))
    return str(problem)


def test_lists_and_arrays_in_a_pickle_and_json_are_read(tmp_path):
    path = tmp_path / "caption.json"
    path.write_text(json.dumps({"v": VALID}))
    expected = Captions(starts=(0, 2.5), ends=(2, 4), texts=("add", "stir"))
    for source in (path, {"v": VALID}, {"v": ARRAYS}):
        file = CaptionFile(source if source is path else captions_in(tmp_path, source))
        assert list(file) == ["v"]
        assert "v" in file
        assert file.of("v") == expected


def test_frames_of_pandas_are_refused_with_what_to_write_instead(tmp_path):
    pandas = pytest.importorskip("pandas")
    with pytest.raises(InputError, match=r"DataFrame, which is not opened.*its text as \.json"):
        CaptionFile(captions_in(tmp_path, {"v": pandas.DataFrame(VALID)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"end": [2.0]}, "2 starts, 1 ends and 2 texts"),
        ({"start": [], "end": [], "text": []}, "0 starts"),
        ({"start": [0, float("nan")]}, "captions 1: 'start' is no finite number of seconds"),
        ({"start": [0, "2"]}, "'start' is no finite number"),
        ({"start": [0, True]}, "'start' is no finite number"),
        ({"start": [0, 10**5000]}, "'start' is no finite number"),
        ({"end": [2.0, 2.4]}, "captions 1: they end before they start"),
        ({"text": ["add", None]}, "captions 1: 'text' is no text (NoneType)"),
        ({"text": "add"}, "no list 'text'"),
        ({"start": np.zeros((2, 2))}, "no list 'start'"),
    ],
)
def test_what_is_wrong_is_named_with_the_video(tmp_path, change, message):
    problem = refusal(captions_in(tmp_path, {"v": VALID | change}))
    assert "video 'v'" in problem
    assert message in problem


def test_missing_videos_keys_and_files_are_named(tmp_path):
    path = captions_in(tmp_path, {"v": {"start": [0], "end": [1]}, "w": 3})
    assert "has no 'text'" in refusal(path)
    assert "is a int" in refusal(path, "w")
    assert "has no captions" in refusal(path, "x")
    assert "holds a list" in refusal(captions_in(tmp_path, [1]))
    broken = tmp_path / "caption.json"
    broken.write_text('{"v": ')
    assert "is no JSON" in refusal(broken)
    assert "no such file" in refusal(tmp_path / "no.json")


def test_captions_that_python_2_pickled_as_bytes_are_utf_8(tmp_path):
    text = "don\u2019t".encode()
    path = tmp_path / "caption.pickle"
    times = b"U\x05start]K\x00aU\x03end]K\x02a"
    path.write_bytes(
        b"\x80\x02}(U\x01v}(" + times + b"U\x04text]U" + bytes([len(text)]) + text + b"auu."
    )
    assert CaptionFile(path).of("v").texts == ("don\u2019t",)


def test_a_broken_caption_is_left_out_without_its_video_where_such_are_skipped(tmp_path):
    captions = {
        "start": [0, float("nan"), 2, 3, 9, 5],
        "end": [1, 2, 3, 4, 8, 6],
        "text": ["one", "two", None, "four", "five", "six"],
    }
    left_out = Problems()
    found = CaptionFile(captions_in(tmp_path, {"v": captions})).of("v", left_out)
    assert (found.texts, list(found.starts)) == (("one", "four", "six"), [0, 3, 5])
    assert [one.place.rpartition(", ")[2] for one in left_out] == [
        f"captions {row}" for row in (1, 2, 4)
    ]
    with pytest.raises(InputError, match="captions 1: 'start' is no finite number"):
        CaptionFile(tmp_path / "caption.pickle").of("v")


def test_a_video_without_any_valid_caption_is_refused_even_where_such_are_skipped(tmp_path):
    path = captions_in(tmp_path, {"v": VALID | {"text": [1, 2]}})
    with pytest.raises(InputError, match="no caption that can be read"):
        CaptionFile(path).of("v", Problems())
