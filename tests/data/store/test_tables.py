"""Places of values in mapped files."""

import numpy as np
import pytest

from continual_mm.data.store.sources import blocks_of
from continual_mm.data.store.tables import steps_of

SEEDS = range(30)


@pytest.mark.parametrize("seed", SEEDS)
def test_steps_are_those_of_a_loop_over_runs(seed):
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, 41, size=seed % 12)
    counts, stride = rng.integers(0, 7, size=len(starts)), 1 + seed % 4
    runs = zip(starts.tolist(), counts.tolist(), strict=True)
    looped = [start + step * stride for start, count in runs for step in range(count)]
    assert steps_of(starts, counts, stride).tolist() == looped


@pytest.mark.parametrize("seed", SEEDS)
def test_blocks_cover_all_rows_once_and_are_no_larger_than_asked(seed):
    rng = np.random.default_rng(seed)
    sizes, most = rng.integers(0, 10, size=seed % 13), 1 + seed % 20
    blocks = list(blocks_of(sizes, most))
    assert [row for block in blocks for row in range(len(sizes))[block]] == list(range(len(sizes)))
    for block in blocks:
        assert sum(sizes[block]) <= most or block.stop - block.start == 1
