"""Datasets made of arrays in memory."""

import numpy as np
import pytest
import torch

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.modality import Kind
from continual_mm.system.errors import InputError

SPLIT = [0, 0, 0, 0, 1, 2]


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(3.0, 2.0, size=shape).astype(np.float32)


def refusal(arrays, **rest):
    with pytest.raises(InputError) as caught:
        Dataset.from_arrays(arrays, **{"split": SPLIT, **rest})
    return str(caught.value)


def test_axes_decide_the_kind_where_none_is_given():
    arrays = {"a": draw(6, 4), "b": draw(6, 5, 4), "c": draw(6, 5, 4, 2), "d": draw(6, 5, 4)}
    dataset = Dataset.from_arrays(arrays, split=SPLIT, kinds={"d": "spectrogram"})
    kinds = [modality.kind for modality in dataset.card.modalities]
    assert kinds == [Kind.VECTOR, Kind.TOKENS, Kind.FRAMES, Kind.SPECTROGRAM]
    assert dataset.card.names == tuple(dataset.columns) == ("a", "b", "c", "d")
    assert dataset.columns["a"].lengths is None
    assert dataset.columns["b"].lengths.tolist() == [5] * 6


def test_without_a_split_groups_stay_whole():
    group = np.random.default_rng(0).integers(40, size=300)
    group[:20] = -1  # items without one are groups by themselves
    made = Dataset.from_arrays({"a": np.arange(300.0)[:, None]}, group=group)
    splits = [set(made.split[group == one].tolist()) for one in range(40)]
    assert {len(one) for one in splits} == {1}
    assert set.union(*splits) == {0, 1, 2}
    two = Dataset.from_arrays({"a": np.arange(30.0)[:, None]}, group=np.arange(30) % 2)
    alone = Dataset.from_arrays({"a": np.arange(30.0)[:, None]})
    np.testing.assert_array_equal(two.split, alone.split)


@pytest.mark.parametrize(("items", "sizes"), [(3, (1, 1, 1)), (30, (24, 3, 3)), (99, (81, 9, 9))])
def test_without_a_split_a_tenth_each_goes_to_validation_and_test(items, sizes):
    first = Dataset.from_arrays({"a": draw(items, 2)})
    second = Dataset.from_arrays({"b": draw(items, 3, seed=7)})
    assert first.card.items == sizes
    assert (first.split == second.split).all()


def test_values_stay_as_they_are_without_standardising_and_the_callers_always():
    values = draw(6, 4, 2)
    before = values.copy()
    plain = Dataset.from_arrays({"a": values}, split=SPLIT, standardise=False)
    assert (plain.columns["a"].values == values).all()
    padded = Dataset.from_arrays(
        {"a": values}, split=SPLIT, standardise=False, lengths={"a": [2] * 6}
    )
    assert (padded.columns["a"].values[:, :2] == values[:, :2]).all()
    assert not padded.columns["a"].values[:, 2:].any()
    Dataset.from_arrays({"a": values}, split=SPLIT, lengths={"a": [2] * 6})
    assert (values == before).all()


def test_tensors_lists_any_float_and_raw_pixels_are_taken():
    values = draw(6, 2)
    exact = Dataset.from_arrays({"a": values}, split=SPLIT, standardise=False)
    for given_as in (torch.from_numpy(values), values.tolist(), np.asfortranarray(values, ">f8")):
        dataset = Dataset.from_arrays({"a": given_as}, split=torch.tensor(SPLIT), standardise=False)
        assert dataset.columns["a"].values.dtype == np.float32
        assert (dataset.columns["a"].values == exact.columns["a"].values).all()
    pixels = np.random.default_rng(0).integers(0, 256, size=(6, 3, 4, 5), dtype=np.uint8)
    images = Dataset.from_arrays({"a": pixels}, split=SPLIT, standardise=False)
    assert (images.columns["a"].values == pixels).all()


def test_rows_that_lack_a_modality_may_hold_anything():
    values = draw(6, 3, 2)
    values[1] = np.nan
    values[0, 2] = np.inf
    present, lengths = {"a": np.arange(6) != 1}, {"a": [2, 99, 3, 3, 3, 3]}
    dataset = Dataset.from_arrays({"a": values}, split=SPLIT, present=present, lengths=lengths)
    column = dataset.columns["a"]
    assert np.isfinite(column.values).all()
    assert not column.values[1].any()
    assert not column.values[0, 2].any()


def test_describing_columns_are_kept():
    numbers = {"label": [1, 1, 2, 2, 3, 3], "group": np.arange(6, dtype=np.uint8)}
    words = {"ids": list("uvwxyz"), "text": np.array(["one"] * 6, dtype=object)}
    dataset = Dataset.from_arrays({"a": draw(6, 2)}, split=SPLIT, **numbers, **words)
    assert dataset.ids[3] == "x"
    assert dataset.label.tolist() == [1, 1, 2, 2, 3, 3]
    assert dataset.group.dtype == np.int64
    assert dataset.text[5] == "one"
    assert dataset.card.has_labels
    assert not Dataset.from_arrays({"a": draw(6, 2)}, split=SPLIT).card.has_labels


def test_what_only_some_items_have_may_be_none_or_nan():
    dataset = Dataset.from_arrays(
        {"a": draw(6, 2)},
        split=SPLIT,
        label=[0.0, float("nan"), 2.0, 1.0, float("nan"), 2.0],
        group=np.array([None, 3, 3, None, 0, 0], dtype=object),
        text=np.array(["one", None, "", "two", float("nan"), " "], dtype=object),
    )
    assert dataset.label.tolist() == [0, -1, 2, 1, -1, 2]
    assert dataset.group.tolist() == [4, 3, 3, 5, 0, 0]
    assert dataset.text.tolist() == ["one", "", "", "two", "", " "]
    # What is not missing is not rounded.
    with pytest.raises(InputError, match=r"'label': is float64.*, -1 for an item that has none"):
        Dataset.from_arrays({"a": draw(6, 2)}, split=SPLIT, label=[0.5, float("nan"), *[1] * 4])


def test_the_fingerprint_follows_the_content_and_only_the_content():
    def fingerprint(values, **rest):
        return Dataset.from_arrays({"a": values}, split=SPLIT, **rest).card.fingerprint

    values = draw(6, 2)
    changed = values.copy()
    changed[3, 1] += 1
    assert fingerprint(values) == fingerprint(values.copy(), name="other")
    different = [values, changed, values.reshape(6, 2, 1), values.astype(np.float64)]
    assert len({fingerprint(each) for each in different}) == 4
    assert fingerprint(values) != fingerprint(values, label=[0] * 6)
    pairs = [{"a": values, "b": changed}, {"b": changed, "a": values}]
    first, second = (Dataset.from_arrays(each, split=SPLIT).card.fingerprint for each in pairs)
    assert first == second


@pytest.mark.parametrize(
    ("arrays", "rest", "expected"),
    [
        ({"ids": draw(6, 2)}, {}, "'ids': is reserved"),
        ({"a": draw(6)}, {}, "its items have no axis"),
        ({"a": draw(6, 0)}, {}, "its items are empty"),
        ({"a": np.ones((6, 2), dtype=np.complex64)}, {}, "a modality holds floats"),
        ({"a": torch.ones(6, 2, requires_grad=True)}, {}, "is no array"),
        ({"a": [[1.0, 2.0]] * 5 + [[1.0]]}, {}, "pad ragged rows to one shape and give their"),
        ({}, {}, "has no modality"),
        ({"a": draw(6, 2)}, {"kinds": {"a": "tokens"}}, "have shape (2,), which is no tokens"),
        ({"a": draw(6, 2, 2, 2)}, {"kinds": {"a": "spectrogram"}}, "one has two axes"),
        ({"a": draw(6, 2)}, {"kinds": {"a": Kind.FRAMES}}, "one has two or more axes"),
        ({"a": draw(6, 2, 2)}, {"kinds": {"a": Kind.VECTOR}}, "one has one axis"),
        ({"a": draw(6, 2)}, {"text": [None, 3] * 3}, "'text_raw': holds Python objects"),
        ({"a": draw(6, 2)}, {"split": [0] * 6}, "there is no validation item"),
    ],
)
def test_an_unusable_array_is_refused(arrays, rest, expected):
    assert expected in refusal(arrays, **rest)
