"""Who is told how a run goes on. Nothing is printed here."""

from typing import Any

from avalanche.core import BaseSGDPlugin

from continual_mm.learning.learner import Learner


class Listener:
    """Hears of a run's progress; by default it does not care."""

    def begins(self, run: str, stages: int, steps: int) -> None:
        """A run begins: its name, its stages and the optimiser steps still to do."""

    def resumes(self, stage: int, step: int) -> None:
        """The run goes on after a 1-based stage (0: none) and some steps of the next."""

    def steps(self, count: int) -> None:
        """Some optimiser steps were made."""

    def scored(self, stage: int, recalls: dict[str, float]) -> None:
        """A 1-based stage ended with these R@1 per pair, as fractions."""

    def ends(self, seconds: float) -> None:
        """The run is finished."""


class Ticker(BaseSGDPlugin[Any]):
    """Tells a listener of every optimiser step."""

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener = listener

    def after_training_iteration(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """A step was made."""
        self._listener.steps(1)
