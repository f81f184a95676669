"""Callbacks that receive the progress of runs; nothing is printed here, no torch is imported."""

import math
from dataclasses import dataclass
from typing import Any

Moment = tuple[int, int]  # 0-based stage, and optimiser steps over all stages until then


@dataclass(frozen=True, slots=True)
class Halt:
    """Where a run fell behind: when it was evaluated last, and what the goal came to then."""

    moment: Moment
    value: float


class HaltedError(RuntimeError):
    """A run was ended early, since its remaining steps could not pay off."""

    def __init__(self, halt: Halt, least: float) -> None:
        self.halt, self.least = halt, least
        stage, step = halt.moment
        super().__init__(
            f"pruned in stage {stage + 1}, at step {step}: {halt.value:.4f} on the validation "
            f"items, where {least:.4f} keeps up with the median of earlier trials"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return HaltedError, (self.halt, self.least)


class RunReporter:
    """Callbacks of one run; by default they do nothing."""

    def begins(self, run: str, stages: int, steps: int) -> None:
        """A run begins: its name, its stages and the optimiser steps still to do."""

    def resumes(self, stage: int, step: int) -> None:
        """The run continues after a 1-based stage (0: none) and some steps of the next."""

    def steps(self, count: int) -> None:
        """Some optimiser steps were made."""

    def scored(self, stage: int, recalls: dict[str, float]) -> None:
        """A 1-based stage ended with these R@1 per pair, as fractions."""

    def warns(self, text: str) -> None:
        """Something about the run that a user should know; it goes on."""

    def ends(self, seconds: float) -> None:
        """The run is finished."""


class Reporter:
    """Callbacks of many runs, possibly several at once; by default they do nothing."""

    def loads(self, what: str) -> None:
        """Something is about to be loaded that may take seconds."""

    def run_reporter(self, run: str) -> RunReporter:
        """The callbacks of a run that starts now; called once for each run."""
        return RunReporter()

    def skips(self, run: str) -> None:
        """The run was finished earlier."""

    def halts(self, run: str, reason: str) -> None:
        """The run was given up before its end on purpose."""

    def fails(self, run: str, error: str) -> None:
        """The run ended before it was finished, for the reason given in one line."""


def percent(fraction: float) -> str:
    """A score in percent as people read it; below 1 with two digits, and a dash for NaN.

    >>> percent(0.3333), percent(0.0033333), percent(0.0), percent(float("nan"))
    ('33.3', '0.33', '0.0', '-')
    """
    value = 100 * fraction
    if math.isnan(value):
        return "-"
    return f"{value:.2g}" if 0 < abs(value) < 0.995 else f"{value:.1f}"
