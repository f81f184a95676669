"""Which items answer a query equally well."""

from dataclasses import replace

import numpy as np
import pytest

from continual_mm.data import columns
from continual_mm.data.dataset import Dataset
from continual_mm.evaluation.pairs import query_groups

ROWS = np.arange(6)
WORDS = np.array(
    [[[1.0], [0.0]], [[1.0], [0.0]], [[1.0], [0.0]], [[2.0], [3.0]], [[2.0], [3.0]], [[0.0], [1.0]]]
)


def dataset(*, label=None, text=None):
    sight = np.array([[1.0, 2], [3, 4], [1, 2], [1, 3], [3, 4], [2, 1]])
    arrays = {"sight": sight, "words": WORDS, "text": np.arange(6.0)[:, None]}
    lengths = {"words": [1, 2, 1, 2, 2, 2]}
    return Dataset.from_arrays(arrays, lengths=lengths, standardise=False, label=label, text=text)


def sets(groups, rows=ROWS):
    assert groups is not None
    assert groups.shape == rows.shape
    return {frozenset(rows[groups == group].tolist()) for group in groups}


def asked(source, modality, positives):
    return query_groups(source, modality, ROWS, positives=positives)


def test_paired_items_answer_only_themselves():
    assert asked(dataset(label=[0] * 6), "sight", "paired") is None


@pytest.mark.parametrize("modality", ["sight", "words", "text"])
def test_items_of_a_label_answer_one_another_in_every_modality(modality):
    found = asked(dataset(label=[7, -3, 7, 7, -3, 0]), modality, "label")
    assert sets(found) == {frozenset({0, 2, 3}), frozenset({1, 4}), frozenset({5})}


def test_an_item_without_a_label_or_a_caption_is_like_no_other_for_that():
    found = asked(dataset(label=[7, -1, 7, -1, 0, -1]), "sight", "label")
    assert sets(found) == {frozenset({0, 2}), *(frozenset({row}) for row in (1, 3, 4, 5))}
    # Without captions, what the modality itself shows decides.
    source = dataset(text=["a", "a", "", "", "", ""])
    assert sets(asked(source, "text", "duplicates")) == {
        frozenset({0, 1}), *(frozenset({row}) for row in (2, 3, 4, 5))
    }  # fmt: skip


def test_labels_that_are_not_there_are_an_error():
    with pytest.raises(ValueError, match="dataset 'arrays' has no labels"):
        asked(dataset(), "sight", "label")


CAPTIONS = ["a ball", "a cube", "a ball", "a Ball", "a cube", "a ball "]


@pytest.mark.parametrize(
    ("modality", "text", "expected"),
    [
        ("sight", None, [{0, 2}, {1, 4}, {3}, {5}]),
        ("words", None, [{0, 2}, {1}, {3, 4}, {5}]),  # a zero of an item is no padding
        ("text", CAPTIONS, [{0, 2}, {1, 4}, {3}, {5}]),
        ("text", None, [{0}, {1}, {2}, {3}, {4}, {5}]),
    ],
)
def test_items_that_show_the_same_answer_one_another(modality, text, expected):
    found = sets(asked(dataset(text=text), modality, "duplicates"))
    assert found == set(map(frozenset, expected))


def test_items_are_the_same_whether_they_are_looked_at_at_once_or_one_by_one(monkeypatch):
    zeros = {"sight": np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, 2.0]] * 2), "words": WORDS}
    source = Dataset.from_arrays(zeros, standardise=False, lengths={"words": [1, 2, 1, 2, 2, 2]})
    for most in (1 << 23, 1):
        monkeypatch.setattr(columns, "_BLOCK_VALUES", most)
        assert sets(asked(source, "sight", "duplicates")) == {
            frozenset({0, 1, 3, 4}),
            frozenset({2, 5}),
        }
        assert frozenset({0, 2}) in sets(asked(source, "words", "duplicates"))


def test_only_the_rows_asked_for_count_in_their_order():
    rows = np.array([4, 2, 1])
    groups = query_groups(dataset(), "sight", rows, positives="duplicates")
    assert sets(groups, rows) == {frozenset({1, 4}), frozenset({2})}


def test_no_rows_have_no_groups():
    none = np.array([], dtype=np.int64)
    for modality in ("sight", "words", "text"):
        groups = query_groups(dataset(), modality, none, positives="duplicates")
        assert groups is not None
        assert groups.shape == (0,)


def test_captions_are_looked_at_some_at_a_time_and_never_all_as_long_as_the_longest():
    class Captions:
        """Texts for every item, which note how many characters were in one array."""

        most = 0

        def __len__(self):
            return 1950

        def __getitem__(self, rows):
            texts = ["x" * 200_000 if row == 7 else f"grüße {row % 900}" for row in rows.tolist()]
            found = np.array(texts)
            self.most = max(self.most, found.nbytes // 4)
            return found

    rows, captions = np.arange(1950), Captions()
    whole = Dataset.from_arrays({"text": np.zeros((1950, 1))}, standardise=False)
    source = replace(whole, text=captions)
    groups = query_groups(source, "text", rows, positives="duplicates")
    assert sets(groups, rows) == {
        frozenset({7}),
        *(frozenset(range(first, 1950, 900)) - {7} for first in range(900)),
    }
    assert captions.most <= 256 * 200_000


def test_a_caption_of_half_a_character_is_a_caption():
    source = dataset(text=["\ud83d", "b", "\ud83d", "c", "d", "e"])
    assert frozenset({0, 2}) in sets(asked(source, "text", "duplicates"))


def test_rows_that_lack_the_modality_repeat_nothing():
    ones, here = np.ones((4, 1)), [True, True, False, False]
    for text in (None, ["a", "a", "", ""]):
        name = "sight" if text is None else "text"
        source = Dataset.from_arrays(
            {name: ones}, standardise=False, text=text, present={name: here}, split=[0, 0, 1, 2]
        )
        found = query_groups(source, name, np.arange(4), positives="duplicates")
        assert sets(found, np.arange(4)) == {frozenset({0, 1}), frozenset({2}), frozenset({3})}
