"""Which items a step shows, one by one or group by group."""

import torch

from continual_mm.learning.loader import GroupOrder

GROUPS = torch.tensor([7, 3, 7, 7, 3, 9, 7, 3, 9, 5, 5, 5, 5, 5])


def blocks(order: GroupOrder, step: int, each: int) -> torch.Tensor:
    """(groups, each) positions of a step."""
    return order[step].view(-1, each)


def test_rows_of_one_group_stand_side_by_side() -> None:
    for replace in (False, True):
        order = GroupOrder(GROUPS, 6, each=2, replace=replace, seed=0)
        for step in range(20):
            of = GROUPS[blocks(order, step, 2)]
            assert of.shape == (3, 2)
            assert (of == of[:, :1]).all()
            assert len(set(of[:, 0].tolist())) == 3


def test_every_group_is_shown_once_in_a_pass() -> None:
    order = GroupOrder(GROUPS, 4, each=2, seed=1)
    assert order.steps_per_pass == 2
    for first in range(0, 10, 2):
        shown = torch.cat([order[first], order[first + 1]])
        assert sorted(GROUPS[shown].unique().tolist()) == [3, 5, 7, 9]


def test_dealt_members_differ_until_a_group_has_no_more() -> None:
    order = GroupOrder(GROUPS, 16, each=4, seed=2)
    for step in range(10):
        for shown in blocks(order, step, 4):
            size = int((GROUPS[shown[0]] == GROUPS).sum())
            assert len(shown.unique()) == min(size, 4)


def test_drawn_members_are_uniform_and_may_repeat() -> None:
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


def test_a_step_is_the_same_whatever_was_asked_before() -> None:
    first = GroupOrder(GROUPS, 4, each=2, seed=4)
    forward = [first[step].tolist() for step in range(8)]
    second = GroupOrder(GROUPS, 4, each=2, seed=4)
    assert [second[step].tolist() for step in reversed(range(8))] == forward[::-1]
    assert forward != [GroupOrder(GROUPS, 4, each=2, seed=5)[step].tolist() for step in range(8)]


def test_a_batch_smaller_than_a_group_has_one_group() -> None:
    shown = GroupOrder(GROUPS, 3, each=32, seed=0)[0]
    assert len(shown) == 3
    assert len(GROUPS[shown].unique()) == 1
