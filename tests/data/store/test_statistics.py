"""Mean and deviation of what passes by once."""

import numpy as np
import pytest

from continual_mm.data.store import statistics as moments
from continual_mm.data.store.statistics import Moments, word_moments


@pytest.mark.parametrize("block", [1, 7, 1 << 21])
def test_blocks_merge_into_what_numpy_measures_of_the_whole(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moments, "BLOCK_VALUES", block)
    values = np.random.default_rng(0).normal(1e4, 1e-2, size=(300, 3))
    measured = Moments(3)
    for start, end in ((0, 1), (1, 120), (120, 120), (120, 300)):
        measured.add(values[start:end])
    mean, deviation = measured.result()
    np.testing.assert_allclose(mean, values.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(deviation, values.std(axis=0), rtol=1e-9)


def test_of_nothing_nothing_is_measured() -> None:
    assert Moments(3).result() is None
    assert word_moments(np.ones((2, 3)), np.zeros(2, dtype=np.int64)) is None


def test_words_weigh_as_often_as_they_occur(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "BLOCK_VALUES", 6)
    vectors = np.random.default_rng(0).normal(5.0, 1.0, size=(9, 3)).astype(np.float32)
    counts = np.array([0, 3, 1, 0, 7, 2, 2, 0, 1])
    mean, deviation = word_moments(vectors, counts)
    spelt_out = np.repeat(vectors.astype(np.float64), counts, axis=0)
    np.testing.assert_allclose(mean, spelt_out.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(deviation, spelt_out.std(axis=0), rtol=1e-12)
