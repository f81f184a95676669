"""Items that are words of one table."""

import numpy as np
import pytest
import torch

from continual_mm.data.store.form import Words
from continual_mm.data.store.reader import read_store, verify_store
from continual_mm.data.store.writer import write_store
from continual_mm.definitions.modality import Kind, Modality
from continual_mm.system.errors import InputError

VECTORS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
SENTENCES = [[0, 5, 5], [2], None, [4, 1, 0, 3], [3, 3]]
LAYOUT = (Words(Modality("text", Kind.TOKENS, (0, 3)), VECTORS),)


def records(sentences):
    return [
        {"ids": str(k), "split": 0 if k < 4 else 2, "text": None if s is None else np.array(s)}
        for k, s in enumerate(sentences)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "store"
    write_store(records(SENTENCES), path, layout=LAYOUT, dtype="float32")
    return path


def test_words_are_looked_up_in_the_table(folder):
    text = read_store(folder, standardise=False, splits=()).columns["text"]
    values, lengths = text.take(torch.tensor([3, 0, 1]))
    assert lengths.tolist() == [4, 3, 1]
    for row, value in zip((3, 0, 1), values.numpy(), strict=True):
        words = SENTENCES[row]
        assert np.array_equal(value[: len(words)], VECTORS[words])
        assert not value[len(words) :].any()
    assert text.modality.shape == (4, 3)
    verify_store(folder)


def test_words_are_standardised_as_often_as_training_items_say_them(folder):
    said = VECTORS[[word for sentence in SENTENCES[:4] for word in sentence or []]]
    measured = read_store(folder, splits=()).statistics["text"]
    np.testing.assert_allclose(measured.mean, said.mean(axis=0, dtype=np.float64), rtol=1e-9)
    np.testing.assert_allclose(1 / measured.rate, said.std(axis=0, dtype=np.float64), rtol=1e-9)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([6], "has a word outside 0..5"),
        ([-1], "has a word outside 0..5"),
        ([0.5], "is float64 of shape"),
        (np.empty(0, dtype=np.int64), "has no word"),
    ],
)
def test_words_that_are_not_in_the_table_are_refused(tmp_path, words, problem):
    with pytest.raises(InputError, match=problem):
        write_store(records([[0], words]), tmp_path / "store", layout=LAYOUT)


@pytest.mark.parametrize(
    "vectors", [np.ones((6, 4)), np.full((6, 3), np.inf), np.ones((6, 3), int)]
)
def test_a_table_of_anything_else_is_refused(tmp_path, vectors):
    layout = (Words(Modality("text", Kind.TOKENS, (0, 3)), vectors),)
    with pytest.raises(InputError, match="word vectors of 'text'"):
        write_store(records(SENTENCES), tmp_path / "store", layout=layout)


def test_another_table_than_that_of_the_store_is_refused(folder):
    table = folder / "text.npy"
    content = table.read_bytes()
    try:
        for damaged in (content[:-5], b"", content[:20]):
            table.write_bytes(damaged)
            with pytest.raises(InputError, match=r"text\.npy: cannot be read"):
                read_store(folder, splits=())
        np.save(table, VECTORS[:5])
        with pytest.raises(InputError, match=r"text\.npy: is float32 of shape \(5, 3\)"):
            read_store(folder, splits=())
        np.save(table, np.array([{"a": 1}]), allow_pickle=True)
        with pytest.raises(InputError, match=r"text\.npy: cannot be read"):
            read_store(folder, splits=())
    finally:
        table.write_bytes(content)


def test_a_damaged_row_does_not_count_from_the_end_of_the_table(tmp_path):
    write_store(records(SENTENCES), tmp_path / "store", layout=LAYOUT)
    shard = tmp_path / "store" / "items" / "data-00000.arrow"
    content = shard.read_bytes()
    sound, damaged = (np.array([4, row, 0, 3], dtype=np.int32).tobytes() for row in (1, -1))
    assert content.count(sound) == 1
    shard.write_bytes(content.replace(sound, damaged))
    store = read_store(tmp_path / "store", splits=())
    with pytest.raises(IndexError):
        store.columns["text"].take(torch.tensor([3]))
