"""UCF101 and HMDB51, written here by pickle alone: classes as words, sound that may be missing."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from continual_mm.data.schema import Record
from continual_mm.preparation.formats.clip_pickles import HMDB51, UCF101, ActionForm, open_actions
from continual_mm.preparation.formats.recipe import Recipe, Report
from continual_mm.preparation.formats.word_vectors import WordVectors
from continual_mm.system.errors import InputError

WORDS = {"apply": 0, "eye": 1, "Eye": 2, "hair": 3}
VECTORS = WordVectors(WORDS, np.random.default_rng(9).normal(size=(4, 5)).astype(np.float32))


def clips(*names: str) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {
            "class": name,
            "video": f"v_{n}",
            "training": n % 3,
            "2d_pooled": rng.normal(size=6).astype(np.float32),
            "3d_pooled": rng.normal(size=4).astype(np.float32),
            "audio": rng.uniform(-80, 0, size=(3, 70)).astype(np.float32),
            "has_audio": True,
        }
        for n, name in enumerate(names)
    ]


NAMES = ("brush_hair", "ApplyEyeMakeup", "brush_hair")


def read(
    folder: Path, content: object, form: ActionForm, recipe: Recipe, **options: Any
) -> list[Record]:
    path = folder / "actions.pkl"
    path.write_bytes(pickle.dumps(content))
    file = open_actions(path, form)
    return list(file.records(VECTORS, recipe, **{"report": Report(), **options}))


def test_classes_become_labels_and_words(tmp_path: Path) -> None:
    records = read(tmp_path, clips(*NAMES), UCF101, Recipe())
    assert [record["label"] for record in records] == [1, 0, 1]
    assert [record["text_raw"] for record in records] == [
        "brush hair",
        "apply eye makeup",
        "brush hair",
    ]
    np.testing.assert_array_equal(records[1]["text"], VECTORS.values[[0, 1]])
    norms = [np.linalg.norm(record["video"]) for record in records]
    np.testing.assert_allclose(norms, np.sqrt(2), rtol=1e-6)


def test_splits_are_those_of_the_file_or_what_is_asked(tmp_path: Path) -> None:
    ucf = read(tmp_path, clips(*NAMES), UCF101, Recipe())
    assert [(one["ids"], one["split"]) for one in ucf] == [("v_0", 2), ("v_1", 0), ("v_2", 2)]
    hmdb = read(tmp_path, clips(*NAMES), HMDB51, Recipe())
    assert [(one["ids"], one["split"]) for one in hmdb] == [("v_1", 0), ("v_2", 2)]
    every = read(tmp_path, clips(*NAMES), HMDB51, Recipe(), split=2)
    assert [one["split"] for one in every] == [2, 2, 2]


def test_reference_fills_sound_up_and_cuts_none_and_robust_gives_the_valid_frames(
    tmp_path: Path,
) -> None:
    recipe = Recipe(mode="reference", audio_frames=90)
    (ucf, *_) = read(tmp_path, clips(*NAMES), UCF101, recipe, split=2)
    (hmdb, *_) = read(tmp_path, clips(*NAMES), HMDB51, recipe, split=2)
    assert (ucf["nframes"], hmdb["nframes"]) == (70, 70)
    assert np.shape(ucf["audio"]) == (90, 3)
    (robust, *_) = read(tmp_path, clips(*NAMES), UCF101, Recipe())
    np.testing.assert_array_equal(robust["audio"], clips(*NAMES)[0]["audio"].T)
    assert "nframes" not in robust


def test_a_clip_without_sound_lacks_it_in_robust_and_has_zeros_in_reference(
    tmp_path: Path,
) -> None:
    changes: list[dict[str, Any]] = [
        {"has_audio": False},
        {"audio": np.zeros((40, 1000), np.float32)},
    ]
    for change in changes:
        silent = clips(*NAMES)
        silent[0] |= change
        assert "audio" not in read(tmp_path, silent, UCF101, Recipe())[0]
    silent = clips(*NAMES)
    silent[0]["has_audio"] = np.bool_(False)
    silent[0].pop("audio")
    assert "audio" not in read(tmp_path, silent, HMDB51, Recipe(), split=2)[0]
    (published, *_) = read(tmp_path, silent, HMDB51, Recipe(mode="reference"), split=2)
    assert np.shape(published["audio"]) == (1000, 40)
    assert not np.any(published["audio"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"training": 7}, "key 'training': is 7"),
        ({"training": "yes"}, "key 'training': is no whole number"),
        ({"class": 3}, "key 'class': is no text"),
        ({"class": ["walk"]}, "key 'class': is no text"),
        ({"2d_pooled": None}, "key '2d_pooled': is a NoneType"),
        ({"video": ""}, "item 1: has no 'video'"),
        ({"has_audio": "no"}, "key 'has_audio': is no whole number"),
    ],
)
def test_a_broken_clip_ends_the_job_or_is_listed_as_asked(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    broken = clips(*NAMES)
    broken[1] |= change
    with pytest.raises(InputError) as caught:
        read(tmp_path, broken, UCF101, Recipe())
    (problem,) = caught.value.problems
    assert told in str(problem)
    report = Report(skip=True)
    kept = read(tmp_path, broken, UCF101, Recipe(), report=report)
    assert [one["ids"] for one in kept] == ["v_0", "v_2"]
    assert report.skipped == [problem]


def test_a_file_without_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="names no class"):
        read(tmp_path, [{"video": "a"}, 3], UCF101, Recipe())
