"""How long an optimiser step takes."""

import time
from itertools import pairwise
from statistics import median
from typing import Any

from avalanche.core import BaseSGDPlugin

from continual_mm.learning.learner import Learner


class Stopwatch(BaseSGDPlugin[Any]):
    """Takes the time from one optimiser step of a stage to the next, plugins and batches included.

    The median is little moved by evaluations and checkpoints between two steps, or by a moment in
    which the machine was busy with something else. It is that of the last stage trained by this
    process, which is the one in which there is something to protect.
    """

    def __init__(self) -> None:
        super().__init__()
        self._times: list[float] = []

    @property
    def step_seconds(self) -> float | None:
        """Median over the last stage; None if fewer than two of its steps were made here."""
        passed = [later - earlier for earlier, later in pairwise(self._times)]
        return median(passed) if passed else None

    def before_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """A stage begins."""
        self._times.clear()

    def after_training_iteration(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """A step was made."""
        self._times.append(time.perf_counter())
