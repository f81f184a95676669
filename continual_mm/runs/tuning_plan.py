"""A search as it was asked for: what is tried, on which scenarios, how often, and where."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.definitions import Strategy
from continual_mm.runs.folder import definition
from continual_mm.runs.judging import Goal, Judge, Moment, moments
from continual_mm.runs.opening import OpenedScenario
from continual_mm.runs.searching import Searched
from continual_mm.runs.tasks import Task
from continual_mm.runs.tuned import valued


@dataclass(frozen=True, slots=True)
class Leg:
    """One of the runs that every trial consists of.

    Attributes:
        opened: Its scenario.
        seed: Its seed.
        goal: By what it is judged.
        moments: When it is looked at; at the last of them, its end, it has its value.
        begun: Moments of the legs before it.
    """

    opened: OpenedScenario
    seed: int
    goal: Goal
    moments: tuple[Moment, ...]
    begun: int

    @property
    def scenario(self) -> str:
        """Name of its scenario."""
        return self.opened.scenario.name


@dataclass(frozen=True, slots=True)
class Plan:
    """A search.

    Attributes:
        scenarios: Checked against their datasets. They count the same, and a trial goes through
            them in this order.
        strategy: Where the search begins: the first trial.
        searched: What is searched.
        out: The search lies in ``out/<scenario>/<strategy>``, see :attr:`folder`.
        trials: How many are recorded at most, those of earlier calls among them.
        seeds: Runs of each trial on each scenario, with seeds 0 to this minus 1.
        metric: What is averaged, see :data:`~continual_mm.rules.METRICS`.
        pruning: Whether a trial ends where it falls below the median of earlier ones.
        seed: Of the search itself.
        options: Keyword arguments of :func:`continual_mm.runs.run.run` that change no number.
    """

    scenarios: tuple[OpenedScenario, ...]
    strategy: Strategy
    searched: tuple[Searched, ...]
    out: Path
    trials: int
    seeds: int = 1
    metric: str = "recall_at_1"
    pruning: bool = True
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The scenarios' names."""
        return tuple(opened.scenario.name for opened in self.scenarios)

    @property
    def folder(self) -> Path:
        """Where the search lies; its runs are below ``trials``. Several names are joined by +."""
        return self.out / "+".join(self.names) / self.strategy.name

    @property
    def runs(self) -> int:
        """How many runs all trials have, if none is pruned."""
        return self.trials * self.seeds * len(self.scenarios)

    def legs(self) -> tuple[Leg, ...]:
        """The runs of a trial in order: scenario by scenario, and for each seed by seed."""
        found: list[Leg] = []
        begun = 0
        for opened in self.scenarios:
            goal = Goal.of(opened.arrivals, self.metric)
            looked_at = tuple(moments(opened.arrivals))
            for seed in range(self.seeds):
                found.append(Leg(opened, seed, goal, looked_at, begun))
                begun += len(looked_at)
        return tuple(found)

    def task(self, name: str, values: Mapping[str, float], leg: Leg, judge: Judge) -> Task:
        """One run of a trial."""
        strategy = valued(self.strategy, values, name)
        options = {**self.options, "observers": (judge,)}
        # Protocols look at test items, and a search must not.
        scenario = leg.opened.scenario.model_copy(update={"protocols": ()})
        return Task(scenario, strategy, self.folder / "trials", leg.seed, options)

    def identity(self) -> dict[str, Any]:
        """All that the search's numbers follow from, save how many trials there are."""
        known = {
            opened.scenario.name: definition(opened.scenario, self.strategy, opened.card, self.seed)
            for opened in self.scenarios
        }
        found = dict(known[self.names[0]])
        if len(known) > 1:
            for part in ("scenario", "data"):
                found[part] = {name: each[part] for name, each in known.items()}
        ranges = {
            str(one): [one.start, one.range.low, one.range.high, one.range.log]
            for one in self.searched
        }
        own = {"seeds": self.seeds, "metric": self.metric, "pruning": self.pruning}
        return {**found, "searched": ranges, **own}

    def check(self) -> None:
        """See whether there is something to be measured on each scenario.

        Raises:
            RefusedError: With a complaint for each lack.
        """
        complaints = [fault for opened in self.scenarios for fault in self._lacks(opened)]
        if complaints:
            raise RefusedError(complaints)

    def _lacks(self, opened: OpenedScenario) -> Iterator[Complaint]:
        goal = Goal.of(opened.arrivals, self.metric)
        place = f"scenario '{opened.scenario.name}'"
        if not (goal.old[-1] and goal.new[-1]):
            lacking = "old" if not goal.old[-1] else "new"
            problem = f"the last stage has no {lacking} pairs, so there is nothing to weigh"
            yield Complaint(place, problem, "tune on one in which a modality arrives")
        if opened.card.items[1] < 1:
            problem = f"dataset '{opened.card.name}' has no validation items"
            yield Complaint(place, problem, "tuning looks at no others: split some off")
