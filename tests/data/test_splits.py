"""Videos that are held out: by their names alone, and one at least of each split that is wanted."""

import pytest

from continual_mm.data.splits import HeldOut
from continual_mm.system.errors import InputError

NAMES = [f"video {number}" for number in range(2000)]


def splits(held_out, names):
    return [held_out.split(name) for name in names]


def test_shares_depend_on_names_alone():
    held_out = HeldOut(validation=0.1, test=0.2)
    found = splits(held_out, NAMES)
    assert 140 < found.count(1) < 260
    assert 320 < found.count(2) < 480
    assert splits(held_out, NAMES[::-1]) == found[::-1]
    assert splits(held_out.among(NAMES), NAMES) == found


def test_few_videos_give_one_to_each_split_that_is_wanted():
    for validation, test, expected in ((0.001, 0.001, {0, 1, 2}), (0.001, 0, {0, 1}), (0, 0, {0})):
        held_out = HeldOut(validation=validation, test=test)
        few = [name for name in NAMES if held_out.split(name) == 0][:9]
        found = splits(held_out.among(few), few)
        assert set(found) == expected
        assert all(found.count(split) == 1 for split in expected - {0})


def test_the_last_video_is_left_to_train_on():
    for count, expected in ((1, [0]), (2, [0, 1]), (3, [0, 1, 2])):
        held_out = HeldOut(validation=1e-9, test=1e-9).among(NAMES[:count])
        assert sorted(splits(held_out, NAMES[:count])) == expected


def test_what_cannot_be_read_is_not_held_out_for_others():
    held_out = HeldOut(validation=0.01)
    hashed = [name for name in NAMES if held_out.split(name) == 1]
    there = [name for name in NAMES if name not in hashed][:5]
    found = held_out.among(NAMES, usable=lambda name: name in there)
    assert [found.split(name) for name in there].count(1) == 1


def test_shares_that_leave_nothing_are_refused():
    with pytest.raises(InputError, match="leave nothing to train on"):
        HeldOut(validation=0.5, test=0.5)
