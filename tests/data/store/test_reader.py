"""Datasets whose features stay on the disk."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from continual_mm.data.batch import Items, Share, join
from continual_mm.data.dataset import Dataset, Split
from continual_mm.data.store import reader as column
from continual_mm.data.store.reader import group_names, read_store
from continual_mm.data.store.writer import write_store
from continual_mm.definitions.modality import Kind, Modality
from continual_mm.learning.loader import StepLoader
from continual_mm.system.errors import InputError

N = 40
LAYOUT = (
    Modality("touch", Kind.VECTOR, (3,)),
    Modality("speech", Kind.SPECTROGRAM, (0, 2)),
    Modality("sight", Kind.FRAMES, (0, 2, 2)),
)
SPLIT = np.repeat([0, 1, 2], [30, 5, 5])
LENGTHS = np.random.default_rng(5).integers(1, 7, size=N)
PRESENT = np.arange(N) % 3 > 0


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    return {
        "touch": rng.normal(7.0, 2.0, size=(N, 3)).astype(np.float32),
        "speech": rng.normal(-40.0, 9.0, size=(N, 6, 2)).astype(np.float32),
        "sight": rng.normal(size=(N, 4, 2, 2)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def folder(arrays, tmp_path_factory):
    def records():
        for row in range(N):
            yield {
                "ids": f"clip {row}",
                "split": SPLIT[row],
                "label": row % 4,
                "group": f"video {row // 10}",
                "text_raw": f"grüße {row % 7}",
                "touch": arrays["touch"][row],
                "speech": arrays["speech"][row, : LENGTHS[row]] if PRESENT[row] else None,
                "sight": arrays["sight"][row],
            }

    path = tmp_path_factory.mktemp("stores") / "store"
    write_store(records(), path, layout=LAYOUT, dtype="float32", shard_bytes=300)
    assert len(list((path / "items").glob("*.arrow"))) > 3
    return path


def in_memory(arrays, **options):
    speech = {"kinds": "spectrogram", "lengths": LENGTHS, "present": PRESENT}
    options |= {name: {"speech": value} for name, value in speech.items()}
    return Dataset.from_arrays(arrays, split=SPLIT, **options)


def same(first, second):
    for kind in ("features", "lengths", "rows"):
        one, other = getattr(first, kind), getattr(second, kind)
        if one.keys() != other.keys() or not all(torch.equal(one[k], other[k]) for k in one):
            return False
    return torch.equal(first.index, second.index)


def blocks(dataset):
    shares = (
        Share(0, torch.arange(30), ("touch", "speech")),
        Share(1, torch.arange(5, N), ("speech", "sight")),
    )
    return Items(dataset, shares).block(
        (torch.tensor([29, 0, 17, 3, 4, 4, 11]), torch.tensor([2, 34, 0, 1, 9]))
    )


def test_batches_are_bit_for_bit_those_of_the_same_arrays_in_memory(folder, arrays, monkeypatch):
    plain = in_memory(arrays, standardise=False)
    assert same(blocks(read_store(folder, standardise=False)), blocks(plain))
    memory = in_memory(arrays)
    measured = memory.statistics
    assert same(blocks(read_store(folder, standardise=measured)), blocks(memory))
    monkeypatch.setattr(column, "BLOCK_VALUES", 5)
    assert same(blocks(read_store(folder, standardise=measured)), blocks(memory))


def test_a_store_standardises_by_what_its_writer_measured(folder, arrays):
    memory, store = in_memory(arrays), read_store(folder)
    assert store.statistics.keys() == memory.statistics.keys() == arrays.keys()
    for name, value in blocks(store).features.items():
        torch.testing.assert_close(value, blocks(memory).features[name], rtol=1e-6, atol=1e-6)
    some, raw = (blocks(read_store(folder, standardise=which)) for which in (["touch"], False))
    assert torch.equal(some.features["touch"], blocks(store).features["touch"])
    assert torch.equal(some.features["speech"], raw.features["speech"])


def test_no_rows_are_an_empty_array_and_rows_beyond_the_last_an_error(folder):
    columns, nothing = read_store(folder).columns, torch.empty(0, dtype=torch.long)
    assert columns["sight"].take(nothing)[0].shape == (0, 0, 2, 2)
    assert columns["touch"].take(nothing)[0].shape == (0, 3)
    with pytest.raises(IndexError):
        columns["touch"].take(torch.tensor([N]))


def test_what_is_not_a_feature_is_there_as_well(folder):
    dataset = read_store(folder)
    assert len(dataset) == len(dataset.ids) == N
    assert dataset.ids[np.array([3, 0])].tolist() == ["clip 3", "clip 0"]
    assert str(dataset.ids[7]) == "clip 7"
    assert dataset.text[np.arange(6, 9)].tolist() == ["grüße 6", "grüße 0", "grüße 1"]
    assert dataset.label.tolist() == [row % 4 for row in range(N)]
    assert group_names(folder)[dataset.group[[0, 39]]].tolist() == ["video 0", "video 3"]
    assert dataset.rows_of(Split.TEST).tolist() == [35, 36, 37, 38, 39]
    assert dataset.columns["speech"].valid.tolist() == np.where(PRESENT, LENGTHS, 0).tolist()
    assert dataset.columns["speech"].present.tolist() == PRESENT.tolist()


def test_another_process_reads_the_same(folder):
    dataset = read_store(folder)
    expected = blocks(dataset)
    # Large arrays of features are no part of what is sent.
    assert same(blocks(pickle.loads(pickle.dumps(dataset))), expected)
    items = Items(dataset, (Share(0, torch.arange(6), ("touch", "sight")),))
    for start in ("fork", "spawn"):
        options = {"num_workers": 1, "multiprocessing_context": start}
        loader = DataLoader(items, batch_size=3, collate_fn=join, **options)
        assert same(join(loader), items.block((torch.arange(6),)))


def test_threads_read_the_same(folder):
    shares = (Share(0, torch.arange(30), ("touch", "speech", "sight")),)
    alone = StepLoader(Items(read_store(folder), shares), (4,), steps=30, seed=0)
    together = StepLoader(Items(read_store(folder), shares), (4,), steps=30, seed=0, workers=3)
    assert all(same(*pair) for pair in zip(alone, together, strict=True))
    fresh = read_store(folder)
    with ThreadPoolExecutor(4) as pool:
        assert all(same(each, blocks(fresh)) for each in pool.map(blocks, [fresh] * 8))


def test_items_without_training_can_only_be_standardised_by_another_dataset(folder, tmp_path):
    records = [{"ids": str(k), "split": 2, "touch": np.ones(3)} for k in range(3)]
    write_store(records, tmp_path / "store", layout=LAYOUT[:1])
    with pytest.raises(InputError, match="no training item has it"):
        read_store(tmp_path / "store", splits=())
    training = read_store(folder)
    test = read_store(tmp_path / "store", standardise=training.statistics, splits=["test"])
    values, _ = test.columns["touch"].take(torch.arange(3))
    expected = (1 - training.statistics["touch"].mean) * training.statistics["touch"].rate
    np.testing.assert_allclose(values[2].numpy(), expected, rtol=1e-6)
