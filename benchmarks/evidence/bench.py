"""The rows of tables: a strategy on one scenario, or averaged over several.

The numbers of several scenarios are averaged replicate by replicate: each replicate resamples
queries and seeds in every scenario and takes the mean over scenarios then. Scenarios of a group
have the same test items and seeds, so a replicate draws the same ones in all of them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from continual_mm.comparison.compare import mean_known
from continual_mm.comparison.estimates import (
    METRICS,
    Draws,
    Estimate,
    Floats,
    intransigence,
    measures,
    old_chance,
    over_seeds,
    start,
)
from continual_mm.runs.finished import FinishedRun

JOINT = "joint"

FURTHER = {"recall@10": "_at_10", "mean_reciprocal_rank": "_mrr"}
"""Metrics besides R@1, and what follows the names of measures that are taken of them."""

OF_ROLES = ("harmonic_mean", "old_pairs", "new_pairs", "emergent_pairs")

INDEXES = ("mixed_recall", "earlier_recall")

NOT_MEASURED: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Line:
    """A strategy on one scenario, or averaged over several.

    Attributes:
        strategy: Its name.
        seeds: Seeds of its runs in each scenario.
        estimates: Measure -> estimate, None where undefined; ``difference`` is among them.
        memory_items: Kept of the past.
        memory_bytes: The same in bytes.
        step_time: As a multiple of naive's.
        vector_size: Numbers of an item, in all vectors by which its pairs compare it.
        chance: R@1 of old pairs in a random order.
    """

    strategy: str
    seeds: tuple[int, ...]
    estimates: Mapping[str, Estimate | None]
    memory_items: float | None = None
    memory_bytes: float | None = None
    step_time: float | None = None
    vector_size: float | None = None
    chance: float | None = None


class Bench:
    """The runs of one scenario, measured on the same replicates.

    Args:
        strategies: Strategy -> its runs, seeds ascending.
        step_times: Strategy -> time of a step as a multiple of naive's, where it was measured.

    Attributes:
        strategies: As given.
        step_times: As given.
        chance: R@1 of old pairs in a random order; NaN without any.
    """

    def __init__(
        self,
        strategies: Mapping[str, Sequence[FinishedRun]],
        step_times: Mapping[str, float] = NOT_MEASURED,
    ) -> None:
        self.strategies = strategies
        self.step_times = step_times
        every = [run for runs in strategies.values() for run in runs]
        self._pairs = every[0].pairs
        self._draws = Draws(every)
        self._known: dict[tuple[str, tuple[int, ...]], Floats] = {}
        self.chance = old_chance(start(every[:1]), self._pairs)

    def replicates(self, strategy: str, reference: str) -> dict[str, Floats]:
        """Measure -> (1 + replicates,), with the difference to a reference; NaN if undefined."""
        runs = self.strategies[strategy]
        recalls = self._recalls(strategy, self._seeds(strategy))
        found = measures(recalls, self._pairs, start(runs))
        for name, ending in FURTHER.items():
            scored = measures(self._draws.scores(runs, METRICS[name]), self._pairs)
            found |= {f"{each}{ending}": scored[each] for each in OF_ROLES}
        found |= {name: over_seeds([getattr(run, name) for run in runs]) for name in INDEXES}
        nothing = np.full_like(found["harmonic_mean"], np.nan)
        found |= {"intransigence": nothing, "difference": nothing}
        if strategy != JOINT and (seeds := self._shared(strategy, JOINT)):
            both = self._recalls(strategy, seeds), self._recalls(JOINT, seeds)
            found["intransigence"] = intransigence(*both, self._pairs)
        if strategy != reference and (seeds := self._shared(strategy, reference)):
            own, other = (
                measures(self._recalls(name, seeds), self._pairs)["harmonic_mean"]
                for name in (strategy, reference)
            )
            found["difference"] = own - other
        return found

    def memory(self, strategy: str) -> tuple[float, float]:
        """Items and bytes, mean over seeds."""
        runs = self.strategies[strategy]
        items = [np.nan if run.memory_items is None else run.memory_items for run in runs]
        return float(np.mean(items)), float(np.mean([run.memory_bytes for run in runs]))

    def vector_size(self, strategy: str) -> float:
        """Mean over seeds; NaN if it is not known."""
        known = mean_known([vector_size(run) for run in self.strategies[strategy]])
        return np.nan if known is None else known

    def _seeds(self, strategy: str) -> tuple[int, ...]:
        return tuple(run.seed for run in self.strategies.get(strategy, ()))

    def _shared(self, strategy: str, other: str) -> tuple[int, ...]:
        return tuple(sorted(set(self._seeds(strategy)) & set(self._seeds(other))))

    def _recalls(self, strategy: str, seeds: tuple[int, ...]) -> Floats:
        if (strategy, seeds) not in self._known:
            runs = [run for run in self.strategies[strategy] if run.seed in seeds]
            self._known[strategy, seeds] = self._draws.scores(runs)
        return self._known[strategy, seeds]


def lines(benches: Sequence[Bench], reference: str) -> list[Line]:
    """Every strategy averaged over some scenarios, best harmonic mean first.

    Args:
        benches: The scenarios.
        reference: The strategy that differences are taken to.
    """
    names = dict.fromkeys(name for bench in benches for name in bench.strategies)
    return sorted((_line(name, benches, reference) for name in names), key=_order)


def _line(strategy: str, benches: Sequence[Bench], reference: str) -> Line:
    seeds = tuple(len(bench.strategies.get(strategy, ())) for bench in benches)
    if not all(seeds):
        return Line(strategy, seeds, {})
    found = [bench.replicates(strategy, reference) for bench in benches]
    estimates = {
        name: Estimate.of(np.mean([each[name] for each in found], axis=0)) for name in found[0]
    }
    items, size = np.mean([bench.memory(strategy) for bench in benches], axis=0)
    step_time = float(np.mean([bench.step_times.get(strategy, np.nan) for bench in benches]))
    vector = float(np.mean([bench.vector_size(strategy) for bench in benches]))
    chance = float(np.mean([bench.chance for bench in benches]))
    further = map(_known, (items, size, step_time, vector, chance))
    return Line(strategy, seeds, estimates, *further)


def vector_size(run: FinishedRun) -> float | None:
    """Numbers of an item, as the run says or as its definition does; None if neither can."""
    plugins = run.protection["plugins"]
    if run.vector_size is not None:
        return run.vector_size
    if "expand" in plugins:
        return None  # it is decided in training
    dim: int = run.task["scenario"]["space"]["dim"]
    return dim * (vectors_of_pairs(run) if "pair_lora" in plugins else 1)


def vectors_of_pairs(run: FinishedRun) -> int:
    """Vectors of the item that has most, where pairs that a later stage trains have their own."""
    own: Counter[str] = Counter()
    there = set(run.arrivals[0])
    for stage in range(1, len(run.arrivals)):
        stated = run.task["scenario"]["stages"][stage].get("pairs")
        completed = [name for name, facts in run.pairs.items() if facts.birth == stage]
        for name in completed if stated is None else stated:
            own.update(there & set(name.split("-")))
        there |= set(run.arrivals[stage])
    return max(own[name] + (own[name] < len(there) - 1) for name in there)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _order(line: Line) -> tuple[bool, float, str]:
    best = line.estimates.get("harmonic_mean")
    return best is None, -(best.mean if best else 0.0), line.strategy
