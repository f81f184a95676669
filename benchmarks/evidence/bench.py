"""The rows of tables: a strategy on one scenario, or averaged over several.

The numbers of several scenarios are averaged replicate by replicate: each replicate resamples
queries and seeds in every scenario and takes the mean over scenarios then. Scenarios of a group
have the same test items and seeds, so a replicate draws the same ones in all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from continual_mm.comparison.estimates import Draws, Estimate, Floats, intransigence, measures
from continual_mm.comparison.finished import FinishedRun

JOINT = "joint"

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
    """

    strategy: str
    seeds: tuple[int, ...]
    estimates: Mapping[str, Estimate | None]
    memory_items: float | None = None
    memory_bytes: float | None = None
    step_time: float | None = None


class Bench:
    """The runs of one scenario, measured on the same replicates.

    Args:
        strategies: Strategy -> its runs, seeds ascending.
        step_times: Strategy -> time of a step as a multiple of naive's, where it was measured.

    Attributes:
        strategies: As given.
        step_times: As given.
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

    def replicates(self, strategy: str, reference: str) -> dict[str, Floats]:
        """Measure -> (1 + replicates,), with the difference to a reference; NaN if undefined."""
        found = measures(self._recalls(strategy, self._seeds(strategy)), self._pairs)
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

    def _seeds(self, strategy: str) -> tuple[int, ...]:
        return tuple(run.seed for run in self.strategies.get(strategy, ()))

    def _shared(self, strategy: str, other: str) -> tuple[int, ...]:
        return tuple(sorted(set(self._seeds(strategy)) & set(self._seeds(other))))

    def _recalls(self, strategy: str, seeds: tuple[int, ...]) -> Floats:
        if (strategy, seeds) not in self._known:
            runs = [run for run in self.strategies[strategy] if run.seed in seeds]
            self._known[strategy, seeds] = self._draws.recalls(runs)
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
    return Line(strategy, seeds, estimates, _known(items), _known(size), _known(step_time))


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _order(line: Line) -> tuple[bool, float, str]:
    best = line.estimates.get("harmonic_mean")
    return best is None, -(best.mean if best else 0.0), line.strategy
