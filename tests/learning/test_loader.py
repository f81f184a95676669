"""Which items a step shows, one by one or group by group, and how they are loaded."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from continual_mm.definitions.arrivals import plan
from continual_mm.learning.loader import BlockLoader, GroupOrder, Order, StepLoader
from continual_mm.learning.stream import benchmark


@pytest.fixture(scope="module")
def streams(scenario, dataset):
    return benchmark(scenario, plan(scenario, dataset.card), dataset, seed=0)


def test_an_order_shows_every_item_once_per_pass_and_any_step_can_be_asked_for():
    order, again = Order(10, 3, seed=1), Order(10, 3, seed=1)
    steps = [order[step].tolist() for step in range(6)]
    for start in (0, 3):
        seen = [item for step in steps[start : start + 3] for item in step]
        assert len(set(seen)) == 9
    assert again[4].tolist() == steps[4]
    assert steps[:3] != steps[3:]
    assert Order(4, 10, seed=0)[7].sort().values.tolist() == [0, 1, 2, 3]


def test_a_loader_gives_as_many_batches_as_steps_and_evaluation_sees_everything_in_order(
    streams, dataset
):
    batches = list(StepLoader(streams.train[0].items, (16,), steps=7, seed=0))
    assert [len(batch) for batch in batches] == [16] * 7
    blocks = list(BlockLoader(streams.scored[1][0].items, rows=9))
    rows = torch.cat([block.index for block in blocks]).tolist()
    assert rows == dataset.rows_of(2).tolist()


def test_threads_fetch_the_same_batches_and_a_late_beginning_the_rest_of_them(streams):
    items = streams.train[0].items
    alone = [b.index.tolist() for b in StepLoader(items, (16,), steps=9, seed=0)]
    ahead = [b.index.tolist() for b in StepLoader(items, (16,), steps=9, seed=0, workers=2)]
    late = StepLoader(items, (16,), steps=9, first=4, seed=0)
    assert ahead == alone
    assert len(late) == 5
    assert [b.index.tolist() for b in late] == alone[4:]


def test_threads_that_fetch_leave_the_cores_to_the_step(streams, monkeypatch):
    items, before, seen = streams.train[0].items, torch.get_num_threads(), []
    torch.set_num_threads(3)
    try:
        fetched = type(items).block

        def block(self, chosen):
            seen.append(torch.get_num_threads())
            return fetched(self, chosen)

        monkeypatch.setattr(type(items), "block", block)
        list(StepLoader(items, (16,), steps=6, seed=0, workers=2))
        assert seen == [1] * 6
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as others:
            assert others.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)


def test_a_loader_that_is_left_early_leaves_no_thread_behind(streams):
    batches = iter(StepLoader(streams.train[0].items, (16,), steps=50, seed=0, workers=2))
    next(batches)
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("loader")]


def test_a_pass_takes_as_many_steps_as_there_are_whole_batches(scenario, dataset, streams):
    items = streams.train[0].items
    assert len(items) == 27  # a third of 80
    loaders = [StepLoader(items, (rows,), steps=1, seed=0) for rows in (12, 27, 99)]
    assert [loader.steps_per_pass for loader in loaders] == [2, 1, 1]
    joint = benchmark(scenario, plan(scenario, dataset.card), dataset, seed=0, joint=True)
    every = StepLoader(joint.train[0].items, (4, 5, 7), steps=1, seed=0)
    assert every.steps_per_pass == 6  # the longest of 27 / 4, 27 / 5 and 26 / 7


GROUPS = torch.tensor([7, 3, 7, 7, 3, 9, 7, 3, 9, 5, 5, 5, 5, 5])


def blocks(order, step, each):
    """(groups, each) positions of a step."""
    return order[step].view(-1, each)


def test_rows_of_one_group_stand_side_by_side():
    for replace in (False, True):
        order = GroupOrder(GROUPS, 6, each=2, replace=replace, seed=0)
        for step in range(20):
            of = GROUPS[blocks(order, step, 2)]
            assert of.shape == (3, 2)
            assert (of == of[:, :1]).all()
            assert len(set(of[:, 0].tolist())) == 3


def test_every_group_is_shown_once_in_a_pass():
    order = GroupOrder(GROUPS, 4, each=2, seed=1)
    assert order.steps_per_pass == 2
    for first in range(0, 10, 2):
        shown = torch.cat([order[first], order[first + 1]])
        assert sorted(GROUPS[shown].unique().tolist()) == [3, 5, 7, 9]


def test_dealt_members_differ_until_a_group_has_no_more():
    order = GroupOrder(GROUPS, 16, each=4, seed=2)
    for step in range(10):
        for shown in blocks(order, step, 4):
            size = int((GROUPS[shown[0]] == GROUPS).sum())
            assert len(shown.unique()) == min(size, 4)


def test_drawn_members_are_uniform_and_may_repeat():
    order = GroupOrder(GROUPS, 4, each=4, replace=True, seed=3)
    counts, repeats = torch.zeros(len(GROUPS)), 0
    for step in range(4000):
        shown = order[step]
        counts += torch.bincount(shown, minlength=len(GROUPS))
        repeats += int(len(shown.unique()) < 4)
    sizes = torch.bincount(GROUPS)[GROUPS]
    # 1,000 steps of 4 rows for each group.
    torch.testing.assert_close(counts * sizes / 4000, torch.ones(len(GROUPS)), atol=0.1, rtol=0)
    assert repeats > 2000


def test_a_step_is_the_same_whatever_was_asked_before():
    first = GroupOrder(GROUPS, 4, each=2, seed=4)
    forward = [first[step].tolist() for step in range(8)]
    second = GroupOrder(GROUPS, 4, each=2, seed=4)
    assert [second[step].tolist() for step in reversed(range(8))] == forward[::-1]
    assert forward != [GroupOrder(GROUPS, 4, each=2, seed=5)[step].tolist() for step in range(8)]


def test_a_batch_smaller_than_a_group_has_one_group():
    shown = GroupOrder(GROUPS, 3, each=32, seed=0)[0]
    assert len(shown) == 3
    assert len(GROUPS[shown].unique()) == 1
