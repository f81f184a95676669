"""Features brought to mean 0 and spread 1 over what the training items really contain."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continual_mm.data.dataset import Dataset
from continual_mm.data.statistics import RunningStatistics
from continual_mm.system.errors import InputError

SPLIT = [0, 0, 0, 0, 1, 2]


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(3.0, 2.0, size=shape).astype(np.float32)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e30, 1e-30])
def test_a_feature_that_is_constant_in_training_becomes_zero_everywhere(value):
    values = draw(6, 2)
    values[:, 1] = value
    values[5, 1] += np.float32(1.0)
    column = Dataset.from_arrays({"a": values}, split=SPLIT).columns["a"].values
    assert not column[:, 1].any()
    assert column[:, 0].all()


def test_a_test_value_that_standardising_throws_beyond_float32_is_refused():
    values = draw(6, 2) * np.float32(1e-20)
    values[5, 0] = 1e30
    with pytest.raises(InputError, match=r"'a': .* \(beyond float32\) in 1 row: 5 \('5'\)"):
        Dataset.from_arrays({"a": values}, split=SPLIT)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_whatever_the_gaps_the_training_rows_come_out_standardised(data):
    rows, time, features = (data.draw(st.integers(3, 12)) for _ in range(3))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    values = rng.normal(size=(rows, time, features)) * 10.0 ** rng.integers(-6, 6, size=features)
    lengths = rng.integers(1, time + 1, size=rows)
    present = rng.random(rows) < 0.7
    split = np.concatenate([[0, 1, 2], rng.integers(0, 3, size=rows - 3)])
    present[0], lengths[0] = True, max(2, lengths[0])
    dataset = Dataset.from_arrays(
        {"a": values}, split=split, lengths={"a": lengths}, present={"a": present}
    )
    column = dataset.columns["a"]
    here = np.arange(time) < column.lengths[:, None]
    assert (here.any(axis=1) == present).all()
    assert not column.values[~here].any()
    seen = column.values[here & (split == 0)[:, None]].astype(np.float64)
    np.testing.assert_allclose(seen.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(seen.std(axis=0), 1.0, atol=1e-5)


def test_another_dataset_is_standardised_by_what_was_measured_on_the_first():
    first = Dataset.from_arrays({"a": np.float32([[0.0], [2.0], [4.0], [9.0]])}, split=[0, 0, 1, 2])
    assert first.columns["a"].values[:, 0].tolist() == [-1.0, 1.0, 3.0, 8.0]
    second = Dataset.from_arrays(
        {"a": np.float32([[7.0], [1.0], [1.0]]), "b": np.float32([[5.0], [6.0], [6.0]])},
        split=[0, 1, 2],
        standardise=first.statistics,
    )
    assert second.columns["a"].values[:, 0].tolist() == [6.0, 0.0, 0.0]
    assert second.columns["b"].values[:, 0].tolist() == [5.0, 6.0, 6.0]


def test_statistics_of_other_features_or_for_no_modality_are_refused():
    first = Dataset.from_arrays({"a": draw(6, 3)})
    with pytest.raises(InputError, match="has 4 features, but 3 were standardised"):
        Dataset.from_arrays({"a": draw(6, 4)}, standardise=first.statistics)
    with pytest.raises(InputError, match="'b': cannot be standardised: there is no such"):
        Dataset.from_arrays({"a": draw(6, 4)}, standardise=["a", "b"])


@pytest.mark.parametrize("block", [1, 7, 1 << 21])
def test_running_statistics_are_those_of_the_whole(block, monkeypatch):
    monkeypatch.setattr("continual_mm.data.statistics.BLOCK_VALUES", block)
    values = np.random.default_rng(0).normal(1e4, 1e-2, size=(300, 3))
    running = RunningStatistics(3)
    assert running.result() is None
    for start, end in ((0, 1), (1, 120), (120, 120), (120, 300)):
        running.add(values[start:end])
    mean, deviation = running.result()
    np.testing.assert_allclose(mean, values.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(deviation, values.std(axis=0), rtol=1e-9)
