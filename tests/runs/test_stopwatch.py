"""Times are those of a clock that the test turns."""

import time
from typing import Any

import pytest

from continual_mm.runs.meters import Stopwatch


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch):
    """A stopwatch after a stage whose steps ended at some times."""

    def after(*stages: list[float]) -> Stopwatch:
        nobody: Any = None
        watch = Stopwatch()
        for ends in stages:
            watch.before_training_exp(nobody)
            for end in ends:
                monkeypatch.setattr(time, "perf_counter", lambda end=end: end)
                watch.after_training_iteration(nobody)
        return watch

    return after


def test_a_moment_in_which_the_machine_was_busy_does_not_count(passed) -> None:
    assert passed([0.0, 1.0, 2.0, 62.0, 63.0]).step_seconds == 1.0


def test_only_the_last_stage_counts(passed) -> None:
    assert passed([0.0, 1.0, 2.0], [10.0, 13.0, 16.0]).step_seconds == 3.0


def test_no_time_is_told_of_fewer_than_two_steps(passed) -> None:
    assert passed([5.0]).step_seconds is None
    assert passed([0.0, 1.0], []).step_seconds is None
