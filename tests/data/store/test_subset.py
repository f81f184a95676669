"""Some items of a store as a store: what is left is what it was."""

import numpy as np
import pytest
import torch

from continual_mm.data.store.form import Window, Windows, Words, read_form
from continual_mm.data.store.reader import group_names, read_store, verify_store
from continual_mm.data.store.sources import Tables
from continual_mm.data.store.subset import write_subset
from continual_mm.data.store.writer import store_writer
from continual_mm.definitions.modality import Kind, Modality, Provenance
from continual_mm.system.errors import InputError

VECTORS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
LAYOUT = (
    Modality("image", Kind.VECTOR, (4,)),
    Modality("depth", Kind.FRAMES, (0, 2, 3)),
    Words(Modality("text", Kind.TOKENS, (0, 3)), VECTORS, blank=True),
    Windows(Modality("video", Kind.VECTOR, (7,)), {"2d": 4, "3d": 3}, "max"),
    Windows(Modality("audio", Kind.SPECTROGRAM, (5, 2)), {"spec": 2}),
)
ROWS = np.array([0, 2, 3, 6, 8, 9])
PROVENANCE = Provenance(reader="youcook2", mode="robust", vectors="0" * 32, max_words=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path, rng = tmp_path_factory.mktemp("stores") / "store", np.random.default_rng(1)
    how = {"dtype": "float16", "shard_bytes": 600, "notes": ("as it was",)}
    with store_writer(path, layout=LAYOUT, provenance=PROVENANCE, **how) as writer:
        shapes = {"2d": (8, 4), "3d": (12, 3), "spec": (20, 2)}
        for number in range(4):
            parts = {part: rng.normal(size=shape) for part, shape in shapes.items()}
            writer.recording(f"recording {number}", parts)
        for row in range(10):
            record = {
                "ids": f"item {row}",
                "split": max(0, row - 7),
                "label": None if row == 2 else row % 3,
                "group": None if row in (0, 6) else f"speaker {9 - row}",
                "text_raw": None if row == 3 else f"what {row} says",
                "image": rng.normal(size=4),
                "depth": None if row == 2 else rng.normal(size=(1 + row % 3, 2, 3)),
                "text": rng.integers(7, size=1 + row % 4),
                "video": Window(3 - row % 2, ((row % 4, 6), (1, 9))),
                "audio": None if row == 3 else Window(3 - row % 2, ((row, row + 9),)),
            }
            writer.item({name: value for name, value in record.items() if value is not None})
    return path


@pytest.fixture(scope="module")
def subset(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("subsets") / "subset"
    write_subset(folder, path, ROWS, note="some of it")
    return path


def test_every_column_of_every_kind_is_what_it_was(folder, subset):
    before, after = (read_store(each, standardise=False) for each in (folder, subset))
    assert after.card.modalities == before.card.modalities
    for name, column in before.columns.items():
        assert np.array_equal(after.columns[name].present, column.present[ROWS])
        having = torch.from_numpy(np.flatnonzero(column.present[ROWS]))
        old, new = column.take(torch.from_numpy(ROWS)[having]), after.columns[name].take(having)
        assert torch.equal(old[0], new[0])
        assert old[1] is new[1] is None or torch.equal(old[1], new[1])
    for column in ("ids", "split", "label", "text"):
        assert np.array_equal(getattr(after, column)[np.arange(6)], getattr(before, column)[ROWS])
    assert len(np.unique(after.group)) == 6
    grouped = ~np.isin(ROWS, (0, 6))
    names = group_names(subset)[after.group[grouped]].tolist()
    assert names == [f"speaker {9 - row}" for row in ROWS[grouped]]
    assert after.notes == ("as it was", "some of it")
    assert after.card.provenance == PROVENANCE
    verify_store(subset)


def test_features_are_standardised_by_what_is_left(folder, subset):
    values = read_store(folder, standardise=False).columns["image"].take(torch.tensor(ROWS[:4]))[0]
    mean = read_store(subset).statistics["image"].mean
    np.testing.assert_allclose(mean, values.double().mean(0), rtol=1e-6)


def test_only_recordings_that_items_lie_in_are_written(folder, subset):
    counts = [len(Tables(each, read_form(each)).recordings) for each in (folder, subset)]
    assert counts == [4, 2]


def test_all_rows_are_the_same_content(folder, tmp_path):
    write_subset(folder, tmp_path / "all", np.arange(10))
    before, after = (read_form(each) for each in (folder, tmp_path / "all"))
    assert after.model_copy(
        update={"tables": {}, "name": "", "fingerprint": ""}
    ) == before.model_copy(update={"tables": {}, "name": "", "fingerprint": ""})


def test_a_modality_that_no_training_item_is_left_with_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match="no training item has the modality 'depth'"):
        write_subset(folder, tmp_path / "few", np.array([2, 8, 9]))
    assert not (tmp_path / "few").exists()
