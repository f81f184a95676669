"""`data inspect`: what is in a dataset, as a table, as JSON and as a picture."""

import json
from pathlib import Path

import numpy as np
import pytest

from continual_mm.data.pack import write_pack
from continual_mm.data.store.writer import write_store
from continual_mm.definitions.modality import Kind, Modality

IDS = np.arange(12).astype(str)


def test_data_is_inspected_in_a_table_and_as_json(said):
    values = np.arange(36.0).reshape(12, 3)
    split = np.repeat([0, 1, 2], [6, 2, 4])
    write_pack("mine.npz", {"a": 1000 * values, "b": values, "ids": IDS, "split": split})
    answer = said("data", "inspect", "mine.npz", "--picture", "items.png", "--items", "9")
    assert answer.code == 0
    assert answer.out.startswith("mine.npz: 12 items (6 training, 2 validation, 4 test)\nall with ")
    assert "- values of a are 1,000 times as large as those of b" in answer.out
    assert answer.err == "picture: items.png (4 of 9 items: there are no more)\n"
    assert Path("items.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads(said("data", "inspect", "mine.npz", "--format", "json").out)
    assert [one["present"] for one in found["modalities"]] == [[6, 2, 4], [6, 2, 4]]
    assert [one["repeats"]["compared"] for one in found["modalities"]] == [12, 12]
    assert "dataset 'mine.npy': not registered" in said("data", "inspect", "mine.npy").err


def test_what_is_in_a_dataset_fits_into_eighty_columns(said):
    name = "a_name_that_is_long"
    rng, split = np.random.default_rng(0), np.repeat([0, 1, 2], [9000, 1000, 2000])
    arrays = {
        "video": rng.standard_normal((12_000, 8), dtype=np.float32),
        name: 70 * rng.standard_normal((12_000, 9, 4), dtype=np.float32),
        f"{name}_kind": np.array("spectrogram"),
        f"{name}_length": rng.integers(1, 10, 12_000),
        f"{name}_present": rng.random(12_000) < 0.5,
    }
    write_pack("mine.npz", {**arrays, "ids": np.arange(12_000).astype(str), "split": split})
    lines = said("data", "inspect", "mine.npz").out.splitlines()
    table = [line for line in lines if not line.startswith("- ")]
    assert max(map(len, table)) <= 80
    assert table[3].split()[:3] == ["video", "vector", "8"]
    assert table[2].split() == ["modality", "kind", "shape", "lengths", "values", "norm"]
    assert table[5] == "video: present in 9,000/1,000/2,000"


@pytest.mark.parametrize(
    ("picture", "problem"),
    [
        ("folder", "folder: is a folder; name a file: folder/items.png"),
        ("nowhere/items.png", "nowhere/items.png: there is no folder nowhere"),
        ("items.foo", "items.foo: ends with '.foo'; the endings are .png, .pdf, .svg"),
    ],
)
def test_where_a_picture_cannot_go_is_said_before_any_data_are_read(said, picture, problem):
    Path("folder").mkdir()
    answer = said("data", "inspect", "no such dataset", "--picture", picture)
    assert (answer.code, len(answer.err.splitlines())) == (2, 1)
    assert f"picture {problem}" in answer.err


def test_a_test_set_alone_is_inspected_and_a_picture_without_an_ending_gets_one(said):
    items = [{"ids": str(k), "split": 2, "radar": np.ones(3)} for k in range(4)]
    write_store(items, "alone", layout=(Modality("radar", Kind.VECTOR, (3,)),))
    answer = said("data", "inspect", "alone", "--picture", "alone_items")
    assert (answer.code, answer.err) == (0, "picture: alone_items.png\n")
    assert "4 items (0 training, 0 validation, 4 test)" in answer.out
    assert "- there is no training item" in answer.out
    assert Path("alone_items.png").is_file()
