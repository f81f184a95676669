"""Feature packs: what is read, what is refused, what is never run."""

import os
import tracemalloc

import numpy as np
import pytest

from continual_mm.data.archive import Header
from continual_mm.data.dataset import Dataset
from continual_mm.data.findings import Findings
from continual_mm.data.pack import check_fits, provenance_column, read_card, read_pack, write_pack
from continual_mm.definitions.modality import DatasetCard, Kind, Modality, Provenance
from continual_mm.system.errors import InputError


def refusal(path):
    with pytest.raises(InputError) as caught:
        read_pack(path)
    return str(caught.value)


@pytest.mark.parametrize("shape", [(6, 3, 5), (6, 3, 5, 3)], ids=["grey", "colour"])
def test_pictures_come_back_as_they_are_and_are_no_modality(shape, columns, saved):
    picture = np.random.default_rng(1).integers(0, 256, size=shape, dtype=np.uint8)
    for dataset in (
        read_pack(saved(picture=picture)),
        Dataset.from_arrays({"video": columns()["video"]}, picture=picture),
    ):
        assert "picture" not in dataset.card.names
        assert dataset.picture.dtype == np.uint8
        assert (dataset.picture == picture).all()


def test_a_pack_gives_what_the_same_arrays_give(columns, saved):
    given_columns = columns()
    dataset = read_pack(saved())
    same = Dataset.from_arrays(
        {"video": given_columns["video"], "text": given_columns["text"]},
        kinds={"video": Kind.SPECTROGRAM},
        lengths={"video": given_columns["video_length"]},
        present={"text": given_columns["text_present"]},
        split=given_columns["split"],
    )
    for name, column in dataset.columns.items():
        assert (column.values == same.columns[name].values).all()
        assert (column.present == same.columns[name].present).all()
    assert (dataset.columns["video"].lengths == same.columns["video"].lengths).all()
    assert dataset.ids.tolist() == given_columns["ids"].tolist()
    assert dataset.text.tolist() == ["a word"] * 6


def test_the_card_says_without_arrays_what_the_dataset_says_with_them(saved):
    path = saved()
    card = read_card(path)
    assert card == read_pack(path).card
    expected = (Modality("video", Kind.SPECTROGRAM, (4, 3)), Modality("text", Kind.VECTOR, (5,)))
    seen = ((("video",), (1, 0, 0)), (("video", "text"), (3, 1, 1)))
    assert card == DatasetCard(
        "mine", expected, (4, 1, 1), card.fingerprint, has_labels=True, presence=seen
    )


def test_the_card_is_read_without_the_arrays(tmp_path, columns):
    path = tmp_path / "large.npz"
    write_pack(path, columns(video=np.zeros((6, 4, 400_000), dtype=np.float32)))
    tracemalloc.start()
    read_card(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000 < path.stat().st_size / 30


def test_other_columns_are_ignored(saved):
    numbers = {"text_ids": np.ones((6, 4), int), "split_mixed": np.zeros(6, int)}
    others = {"vocab": np.array(["one", "two"]), "word_vectors": np.full((40, 8), np.nan)}
    path = saved(temperature=np.float32(0.5), duration=np.ones(6), **numbers, **others)
    assert read_card(path).names == ("video", "text")
    dataset = read_pack(path)
    assert tuple(dataset.columns) == ("video", "text")
    assert dataset.notes == (
        "columns that are not used: temperature (of shape ()), duration (one number for each item),"
        " text_ids (int64, no floats), split_mixed (int64, no floats), vocab (<U3, no floats)"
        " and 1 more",
    )


def test_what_says_how_a_pack_was_converted_is_no_column_of_no_use(saved):
    converted = Provenance(reader="lsmdc", mode="robust", vectors="a" * 32, max_words=20)
    assert read_pack(saved(**provenance_column(converted))).notes == ()


def test_bytes_and_fingerprint_follow_from_the_content(tmp_path, columns):
    first, second = tmp_path / "first.npz", tmp_path / "second.npz"
    write_pack(first, columns())
    turned = np.asfortranarray(columns()["video"])
    os.utime(first, (0, 0))
    write_pack(second, columns(video=turned))
    assert first.read_bytes() == second.read_bytes()
    with np.load(first, allow_pickle=False) as loaded:
        assert loaded.files == list(columns())
        assert all((loaded[name] == column).all() for name, column in columns().items())
    np.savez_compressed(second, **columns())
    assert read_card(first).fingerprint == read_card(second).fingerprint
    np.savez(second, **columns(label=np.arange(6)[::-1]))
    assert read_card(first).fingerprint != read_card(second).fingerprint


def test_more_than_the_memory_is_refused():
    headers = [Header(np.dtype(np.uint8), (10, 100)), Header(np.dtype("<U5"), (10,))]
    needed = 10 * 100 * 4 + 10 * 5 * 4
    check_fits(headers, needed, Findings("mine.npz"))
    with pytest.raises(InputError, match=r"mine.npz: needs .* GB in memory"):
        check_fits(headers, needed - 1, Findings("mine.npz"))


def test_everything_wrong_with_a_pack_is_told_at_once(columns, saved):
    video = columns()["video"].copy()
    video[1, 2, 0], video[3, 1, 0], video[5, 0, 0] = np.nan, np.nan, -np.inf
    path = saved(
        video=video,
        audio=np.ones((7, 2), dtype=np.float32),
        ids=np.array(["ann", "bob", "cat", "bob", "eve", "fay"]),
        split=np.array([0, 0, 0, 0, 1, -1]),
        text_length=np.ones(6, dtype=np.int64),
        smell_present=np.ones(6, dtype=np.bool_),
        label=np.ones(6),
        group=np.array([{}] * 6),
    )
    expected = (
        "column 'group': holds pickled Python objects",
        "column 'smell_present': describes 'smell', which is no modality in here",
        "column 'label': is float64 of shape (6,)",
        "column 'audio': has 7 rows, but there are 6 items",
        "column 'text_length': 'text' is a vector, which has no length",
        "column 'ids': 1 id occurs more than once: 'bob' (rows 1, 3)",
        "column 'split': no such split in 1 row: 5 ('fay')",
        "column 'split': there is no test item",
        "column 'video': not finite in float32 in 2 rows: 1 ('bob'), 5 ('fay')",
    )
    with pytest.raises(InputError) as caught:
        read_pack(path)
    found = [str(problem) for problem in caught.value.problems]
    assert len(found) == len(expected)
    for start in expected:
        assert any(problem.startswith(f"{path}, {start}") for problem in found)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ids": None}, "column 'ids': is missing"),
        ({"split": None}, "column 'split': is missing"),
        ({"ids": np.arange(6)}, "column 'ids': is int64 of shape (6,); store unicode"),
        ({"split": np.zeros(5, dtype=np.int64)}, "column 'split': is int64 of shape (5,)"),
        ({"text_raw": np.array(["a"] * 5)}, "column 'text_raw': is <U1 of shape (5,)"),
        ({"picture": np.zeros((6, 4, 4))}, "'picture': is float64 of shape (6, 4, 4); store uint8"),
        ({"picture": np.zeros((6, 4, 4, 4), np.uint8)}, "or (6, height, width, 3), or give it"),
        ({"text_present": np.ones(6)}, "column 'text_present': is float64"),
        ({"video_kind": np.array(["tokens"])}, "column 'video_kind': is <U6 of shape (1,)"),
        ({"video_kind": "smell"}, "there is no kind 'smell'; the kinds of signal are vector,"),
        ({"video_kind": "vector"}, "items of 'video' have shape (4, 3), which is no vector"),
        ({"video_length": np.array([4, 3, 2, 0, 4, 5])}, "within 1..4 in 2 rows: 3 ('dan'), 5"),
        ({"video": None}, "column 'video_kind': describes 'video'"),
        ({"video": np.ones((6, 4, 3), dtype=np.int64)}, "column 'video': is int64"),
        ({"a.b": np.ones((6, 2))}, "column 'a.b': is no name for a modality"),
        ({"text_present": np.arange(6) > 3}, "column 'text_present': no training item has it"),
        ({"label_length": np.ones(6, dtype=np.int64)}, "describes 'label', which is no modality"),
    ],
)
def test_an_unsound_pack_is_refused(changes, expected, saved):
    assert expected in refusal(saved(**changes))


def test_a_pack_without_a_modality_says_what_it_has_instead(tmp_path, columns):
    path = tmp_path / "mine.npz"
    np.savez(path, ids=columns()["ids"], split=columns()["split"], table=np.ones((900, 8)))
    assert "has no modality; it has table (900, 8)" in refusal(path)


@pytest.mark.parametrize(
    ("name", "modalities", "items"),
    [
        ("grid_s1_dev", {"video": (75, 32), "audio": (75, 40), "text": (51,)}, (600, 50, 150)),
        ("mosi", {"text": (100,), "audio": (73,), "video": (100,)}, (1289, 158, 752)),
        ("avmnist_fsdd", {"image": (28, 28), "audio": (40, 32), "text": (10,)}, (2100, 300, 600)),
        ("grid_s1_dev_lips_u8", {"lips": (75, 20, 32)}, (600, 50, 150)),
    ],
)
def test_real_packs_are_read(test_data, name, modalities, items):
    path = test_data / f"{name}.npz"
    dataset = read_pack(path)
    assert dataset.card == read_card(path)
    assert {each.name: each.shape for each in dataset.card.modalities} == modalities
    assert dataset.card.items == items
    with np.load(path, allow_pickle=False) as raw:
        for column in dataset.columns.values():
            steps = raw[column.modality.name].reshape(column.steps.shape)
            some = steps[dataset.split == 0][..., :40].astype(np.float64)
            mean, spread = some.mean(axis=(0, 1)), some.std(axis=(0, 1))
            varied = spread > 1e-4 * np.abs(some).max(axis=(0, 1))
            expected = ((some - mean) / np.where(varied, spread, 1.0))[..., varied]
            ours = column.steps[dataset.split == 0][..., :40][..., varied]
            np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3)
            assert np.isfinite(column.values).all()
