"""The ring of the latest rows, against a list."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from continual_mm.learning.clusters import Ring


def rows(numbers: list[int]) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float32)[:, None].expand(-1, 2)


@given(st.integers(1, 4), st.lists(st.integers(1, 5), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_it_keeps_the_latest_rows_in_the_order_in_which_they_came(
    batches: int, sizes: list[int]
) -> None:
    ring, known, room = Ring(batches), [], 0
    for number, size in enumerate(sizes):
        if size > room:
            known = []
        room = max(room, batches * size) if size > room else room
        new = [100 * number + place for place in range(size)]
        ring.push(rows(new))
        known = [*known, *new]
        assert ring.full == (len(known) >= room)
        (filled,) = ring.filled()
        assert sorted(filled[:, 0].tolist()) == sorted(known[-room:])
        if ring.full:
            assert ring.latest_last()[:, 0].tolist() == known[-room:]
        else:
            with pytest.raises(ValueError, match="not full"):
                ring.latest_last()


def test_a_ring_for_no_batches_keeps_nothing() -> None:
    ring = Ring(0)
    ring.push(rows([1, 2]))
    assert ring.filled() == ()
    assert not ring.full


def test_a_ring_goes_on_from_its_state() -> None:
    ring, again = Ring(2), Ring(2)
    for start in (0, 3, 6):
        ring.push(rows([start, start + 1, start + 2]))
    again.load_state({key: value.clone() for key, value in ring.state().items()})
    for other in (ring, again):
        other.push(rows([9, 10]))
    assert torch.equal(ring.latest_last(), again.latest_last())


def test_what_is_pushed_is_copied_without_its_graph() -> None:
    points = torch.ones(2, 2, requires_grad=True)
    ring = Ring(1)
    ring.push(points * 3)
    assert not ring.latest_last().requires_grad
