"""Files of captions: lists or frames, pickle or JSON, checked video by video."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from continual_mm.preparation.formats.howto100m import CaptionFile
from continual_mm.preparation.formats.recipe import Report
from continual_mm.system.errors import InputError

SOUND: dict[str, Any] = {"start": [0, 2.5], "end": [2.0, 4], "text": ["add", "stir"]}


def written(folder: Path, content: object) -> Path:
    path = folder / "caption.pickle"
    path.write_bytes(pickle.dumps(content))
    return path


def refusal(path: Path, video: str = "v") -> str:
    with pytest.raises(InputError) as caught:
        CaptionFile(path).of(video)
    (problem,) = caught.value.problems
    assert problem.place.startswith(str(path))
    return str(problem)


def assert_sound(path: Path) -> None:
    captions = CaptionFile(path)
    assert len(captions) == 1
    assert "v" in captions
    said = captions.of("v")
    assert said.starts.tolist() == [0, 2.5]
    assert said.ends.tolist() == [2, 4]
    assert said.texts == ("add", "stir")
    assert len(said) == 2


def test_lists_and_arrays_in_a_pickle_are_read(tmp_path: Path) -> None:
    assert_sound(written(tmp_path, {"v": SOUND}))
    arrays = {
        "start": np.array([0, 2.5], np.float32),
        "end": np.array([2, 4]),
        "text": np.array(["add", "stir"], dtype=object),
    }
    assert_sound(written(tmp_path, {"v": arrays}))


def test_frames_of_pandas_are_read(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    assert_sound(written(tmp_path, {"v": pandas.DataFrame(SOUND)}))


def test_json_is_read(tmp_path: Path) -> None:
    path = tmp_path / "caption.json"
    path.write_text(json.dumps({"v": SOUND}))
    assert_sound(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"end": [2.0]}, "2 starts, 1 ends and 2 texts"),
        ({"start": [], "end": [], "text": []}, "0 starts"),
        ({"start": [0, float("nan")]}, "captions 1: 'start' is no finite number of seconds"),
        ({"start": [0, float("-inf")]}, "captions 1: 'start' is no finite number of seconds"),
        ({"start": [0, "2"]}, "'start' is no finite number"),
        ({"start": [0, True]}, "'start' is no finite number"),
        ({"start": [0, 10**5000]}, "'start' is no finite number"),
        ({"start": [0, 1 + 2j]}, "'start' is no finite number"),
        ({"end": [2.0, 2.4]}, "captions 1: they end before they start"),
        ({"text": ["add", None]}, "captions 1: 'text' is no text (NoneType)"),
        ({"text": "add"}, "no list 'text'"),
        ({"start": np.zeros((2, 2))}, "no list 'start'"),
    ],
)
def test_what_is_wrong_is_told_with_the_video(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    problem = refusal(written(tmp_path, {"v": SOUND | change}))
    assert "video 'v'" in problem
    assert told in problem


def test_missing_videos_keys_and_files_are_told(tmp_path: Path) -> None:
    path = written(tmp_path, {"v": {"start": [0], "end": [1]}, "w": 3})
    assert "has no 'text'" in refusal(path)
    assert "is a int" in refusal(path, "w")
    assert "has no captions" in refusal(path, "x")
    assert "holds a list" in refusal(written(tmp_path, [1]))
    broken = tmp_path / "caption.json"
    broken.write_text('{"v": ')
    assert "is no JSON" in refusal(broken)
    assert "No such file" in refusal(tmp_path / "no.json")


def test_captions_that_python_2_pickled_as_bytes_are_utf_8(tmp_path: Path) -> None:
    said = "don\u2019t".encode()
    path = tmp_path / "caption.pickle"
    times = b"U\x05start]K\x00aU\x03end]K\x02a"
    path.write_bytes(
        b"\x80\x02}(U\x01v}(" + times + b"U\x04text]U" + bytes([len(said)]) + said + b"auu."
    )
    assert CaptionFile(path).of("v").texts == ("don\u2019t",)


def test_one_odd_caption_is_left_out_without_its_video_where_such_are_skipped(
    tmp_path: Path,
) -> None:
    said = {
        "start": [0, float("nan"), 2, 3, 9, 5],
        "end": [1, 2, 3, 4, 8, 6],
        "text": ["one", "two", None, "four", "five", "six"],
    }
    report = Report(skip=True)
    found = CaptionFile(written(tmp_path, {"v": said})).of("v", report)
    assert (found.texts, found.starts.tolist()) == (("one", "four", "six"), [0, 3, 5])
    assert [one.place.rpartition(", ")[2] for one in report.skipped] == [
        f"captions {row}" for row in (1, 2, 4)
    ]
    for odd in (Report(), None):
        with pytest.raises(InputError, match="captions 1: 'start' is no finite number"):
            CaptionFile(tmp_path / "caption.pickle").of("v", odd)


def test_a_video_without_any_sound_caption_is_refused_even_where_such_are_skipped(
    tmp_path: Path,
) -> None:
    path = written(tmp_path, {"v": SOUND | {"text": [1, 2]}})
    with pytest.raises(InputError, match="no caption that can be read"):
        CaptionFile(path).of("v", Report(skip=True))
