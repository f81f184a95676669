"""Runs of values gathered at once."""

import numpy as np
import pytest

from continual_mm.data.store.table import blocks_of, gathered, steps_of

SEEDS = range(30)


@pytest.mark.parametrize("seed", SEEDS)
def test_steps_are_those_of_a_loop_over_runs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, 41, size=seed % 12)
    counts, stride = rng.integers(0, 7, size=len(starts)), 1 + seed % 4
    runs = zip(starts.tolist(), counts.tolist(), strict=True)
    looped = [start + step * stride for start, count in runs for step in range(count)]
    assert steps_of(starts, counts, stride).tolist() == looped


@pytest.mark.parametrize("width", [1, 2, 3])
def test_gathered_rows_are_slices(width: int) -> None:
    values = np.arange(10, dtype=np.float16)
    starts = np.array([7, 0, 3, 3, 5])
    found = gathered(values, starts, width)
    assert found.tolist() == [values[start : start + width].tolist() for start in starts]
    assert gathered(values, starts[:0], width).shape == (0, width)


def test_what_reaches_beyond_the_values_is_never_read() -> None:
    for start, width in ((8, 3), (10, 1), (0, 11)):
        with pytest.raises(IndexError):
            gathered(np.arange(10), np.array([start]), width)


@pytest.mark.parametrize("seed", SEEDS)
def test_blocks_cover_all_rows_once_and_are_no_larger_than_asked(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes, most = rng.integers(0, 10, size=seed % 13), 1 + seed % 20
    blocks = list(blocks_of(sizes, most))
    assert [row for block in blocks for row in range(len(sizes))[block]] == list(range(len(sizes)))
    for block in blocks:
        assert sum(sizes[block]) <= most or block.stop - block.start == 1
