"""The bounded sample of past items."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from continual_mm.learning.memory import Memory, equal_shares


def filled(items, sizes, *, seed=0):
    """A memory after stages of so many items; the rows of stage s are 1000 s, 1000 s + 1, ..."""
    memory = Memory(items, seed=seed)
    for stage, size in enumerate(sizes):
        memory.offer(stage, 1000 * stage + torch.arange(size))
    return memory


def per_stage(memory):
    counts = Counter(memory.stage.tolist())
    return [counts[stage] for stage in sorted(counts)]


@pytest.mark.parametrize(
    ("items", "sizes", "kept"),
    [
        (12, [50], [12]),
        (12, [50, 50], [6, 6]),
        (12, [50, 50, 50], [4, 4, 4]),
        (12, [50, 50, 50, 50], [3, 3, 3, 3]),
        (100, [50, 30], [50, 30]),
        (12, [50, 2], [10, 2]),
        (12, [2, 50], [2, 10]),
    ],
)
def test_stages_share_the_memory_equally(items, sizes, kept):
    assert per_stage(filled(items, sizes)) == kept


def test_the_memory_is_never_larger_than_promised_and_never_emptier_than_need_be():
    memory = Memory(7)
    seen = 0
    for stage, size in enumerate([3, 1, 50, 2, 50, 50, 50, 50, 50]):
        memory.offer(stage, torch.arange(size))
        seen += size
        assert len(memory) == len(memory.stage) == min(7, seen)


def test_kept_rows_are_rows_that_were_offered_each_at_most_once():
    memory = filled(20, [30, 30, 30])
    assert len(set(memory.row.tolist())) == 20
    assert torch.equal(memory.row // 1000, memory.stage)
    assert int((memory.row % 1000).max()) < 30


def test_what_offer_says_is_what_the_memory_holds_afterwards():
    memory = filled(9, [20, 20])
    before, arriving = memory.row.clone(), 2000 + torch.arange(20)
    stays, enters = memory.offer(2, arriving)
    assert torch.equal(memory.row, torch.cat([before[stays], arriving[enters]]))
    for positions in (stays, enters):
        assert torch.equal(positions, positions.unique())


def test_every_item_is_equally_likely_to_be_kept():
    # 600 memories of 6 items, 3 per stage: each of 2 x 10 items is kept 180 times, give or take.
    kept = Counter[int]()
    for seed in range(600):
        kept.update(filled(6, [10, 10], seed=seed).row.tolist())
    counts = [kept[row] for stage in (0, 1000) for row in range(stage, stage + 10)]
    assert sum(counts) == 600 * 6
    expected = 180
    chi_square = sum((count - expected) ** 2 / expected for count in counts)
    # Mean about 13 (rows exclude one another); 0.1 % of fair samples exceed 43 even without that.
    assert chi_square < 43


def test_every_kept_item_is_equally_likely_to_be_drawn():
    memory = filled(20, [50, 50])
    drawn = torch.stack([memory.draw(8) for _ in range(500)])
    counts = torch.bincount(drawn.reshape(-1), minlength=20).double()
    assert counts.sum() == 500 * 8
    assert float(((counts - 200) ** 2 / 200).sum()) < 43


def test_draws_are_distinct_and_have_constant_counts_per_stage():
    memory = filled(30, [50, 50, 4])
    draws = [memory.draw(14) for _ in range(50)]
    assert all(len(draw.unique()) == 14 for draw in draws)
    assert {tuple(torch.bincount(memory.stage[draw]).tolist()) for draw in draws} == {(5, 5, 4)}
    assert len({tuple(draw.tolist()) for draw in draws}) > 40


@pytest.mark.parametrize("rows", [30, 31, 1000])
def test_a_draw_of_everything_is_everything(rows):
    assert filled(30, [50, 50]).draw(rows).tolist() == list(range(30))


def test_nothing_is_drawn_from_an_empty_memory():
    assert Memory(5).draw(3).tolist() == []
    assert filled(5, [0]).draw(3).tolist() == []
    assert filled(1, [5, 5, 5]).draw(4).tolist() == [0]


def test_a_stage_is_offered_once():
    with pytest.raises(ValueError, match="stage 1 is remembered already"):
        filled(9, [20, 20]).offer(1, torch.arange(5))


@pytest.mark.parametrize("items", [0, -3])
def test_a_memory_of_nothing_is_refused(items):
    with pytest.raises(ValueError, match="give at least 1"):
        Memory(items)


@given(st.integers(0, 60), st.lists(st.integers(0, 20), max_size=8))
def test_shares_are_as_equal_as_wishes_allow(total, wishes):
    shares = equal_shares(total, wishes)
    assert sum(shares) == min(total, sum(wishes))
    assert all(0 <= share <= wish for share, wish in zip(shares, wishes, strict=True))
    unsatisfied = [s for s, wish in zip(shares, wishes, strict=True) if s < wish]
    if unsatisfied:
        assert max(shares) - min(unsatisfied) <= 1
