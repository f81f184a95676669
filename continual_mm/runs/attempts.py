"""A trial in progress: what its runs came to until now, and what the next must come to."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median

import optuna
from optuna.trial import TrialState

from continual_mm.runs.files import read_json
from continual_mm.runs.history import Score
from continual_mm.runs.judging import Moment
from continual_mm.runs.tasks import Outcome
from continual_mm.runs.tuning_plan import Leg

STARTUP = 5
"""Finished trials that there must be before one is pruned; that many a median needs to mean
something."""

ROUNDING = 1e-9
"""Far below any difference of scores: trials that are equal must not prune one another."""


@dataclass(slots=True)
class Attempt:
    """A trial in progress.

    Attributes:
        trial: Optuna's.
        values: ``plugin.parameter`` -> what is tried.
        legs: The runs that it consists of.
        found: Moment -> value, for each leg that is done.
        reports: Position among all moments of all legs -> mean over legs until then.
        state: What became of it; None if it is not decided.
        note: Why, in a line.
    """

    trial: optuna.Trial
    values: dict[str, float]
    legs: tuple[Leg, ...]
    found: list[dict[Moment, float]] = field(default_factory=list)
    reports: dict[int, float] = field(default_factory=dict)
    state: TrialState | None = None
    note: str = ""

    @property
    def score(self) -> float:
        """The mean over all legs, once that all are done."""
        return fmean(self._ends())

    def by_scenario(self) -> dict[str, float]:
        """The mean over each scenario's legs, once that all are done."""
        values: dict[str, list[float]] = {}
        for leg, end in zip(self.legs, self._ends(), strict=True):
            values.setdefault(leg.scenario, []).append(end)
        return {scenario: fmean(ends) for scenario, ends in values.items()}

    def _ends(self) -> list[float]:
        done = zip(self.legs, self.found, strict=True)
        return [found[leg.moments[-1]] for leg, found in done]

    def _earlier(self, leg: Leg, moment: Moment) -> Iterator[float]:
        """What is averaged with a leg's value at a moment.

        That is what earlier seeds came to at the same moment, and earlier scenarios at their end.
        """
        for before, found in zip(self.legs, self.found, strict=False):
            yield found[moment if before.opened is leg.opened else before.moments[-1]]

    def least(self, earlier: Sequence[Mapping[int, float]]) -> dict[Moment, float]:
        """What the next leg must come to, so that the mean is not below the median.

        Compared are values at the same moment. Optuna's own pruner takes a trial's best value until
        then instead, and here that is often the one before anything was forgotten.

        Args:
            earlier: The reports of finished trials.
        """
        leg = self.legs[len(self.found)]
        least = {}
        for place, moment in enumerate(leg.moments, start=leg.begun):
            known = [reports[place] for reports in earlier if place in reports]
            if len(known) >= STARTUP:
                own = sum(self._earlier(leg, moment))
                least[moment] = (len(self.found) + 1) * median(known) - own - ROUNDING
        return least

    def take_down(self, outcome: Outcome) -> None:
        """Take down how the next leg ended; nothing, if it failed for no reason of the values."""
        leg = self.legs[len(self.found)]
        if outcome.halted:
            self._report(leg, {outcome.halted.moment: outcome.halted.value})
            self.state = TrialState.PRUNED
        elif outcome.diverged:
            self.state = TrialState.FAIL
        elif not outcome.error:
            found = leg.goal.values(_scores(outcome.folder))
            self._report(leg, found)
            self.found.append(found)
        if self.state is not None:
            several = any(other.opened is not leg.opened for other in self.legs)
            where = f"{leg.scenario}, seed" if several else "seed"
            self.note = f"{where} {leg.seed}: {outcome.error}"

    def _report(self, leg: Leg, found: Mapping[Moment, float]) -> None:
        for place, moment in enumerate(leg.moments, start=leg.begun):
            if moment in found:
                self.reports[place] = fmean([found[moment], *self._earlier(leg, moment)])


def _scores(folder: Path) -> list[Score]:
    """Every evaluation of a finished run."""
    known = read_json(folder / "scores.json")["evaluations"]
    return [Score.from_json(record) for record in known]
