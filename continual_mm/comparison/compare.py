"""Strategies of a scenario side by side: means, intervals, differences to a baseline."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from continual_mm.comparison.collect import collect, grouped
from continual_mm.comparison.estimates import (
    ABOVE_CHANCE,
    METRICS,
    Draws,
    Estimate,
    Floats,
    Metric,
    Start,
    intransigence,
    measures,
    metric_named,
    old_chance,
    over_seeds,
    start,
)
from continual_mm.definitions.coverage import HANDFUL, few_items
from continual_mm.definitions.modality import Pair
from continual_mm.runs import records
from continual_mm.runs.finished import FinishedRun, PairFacts, fewest
from continual_mm.system.errors import first_few


@dataclass(frozen=True, slots=True)
class Headline:
    """What a strategy achieved, as fractions; None where undefined.

    Scores, R@1 if nothing else was asked for, are those after the last stage, averaged over seeds
    first: of pairs trained before it (old), first in it (new) or never (emergent). Of median ranks,
    counted from 1, there are no harmonic mean and no retention, and forgetting is how many places
    old pairs fell. Retention is the
    share of what old pairs had learned above chance at birth that is left, and undefined where one
    begins near chance; forgetting is what they lost from their best earlier
    stage, intransigence what new pairs lack of joint training. Whatever the scores are, the
    stability gap, the fall of old pairs inside the last stage, is one of R@1; it is each seed's
    own, and its interval is over seeds alone. So are those of the
    recalls of indexes: R@10 of all partners in an index of all modalities, and R@1 of old pairs in
    an index that was filled before the last stage.
    """

    harmonic_mean: Estimate | None
    old_pairs: Estimate | None
    new_pairs: Estimate | None
    emergent_pairs: Estimate | None
    retention: Estimate | None
    forgetting: Estimate | None
    intransigence: Estimate | None
    stability_gap: Estimate | None = None
    mixed_recall: Estimate | None = None
    earlier_recall: Estimate | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One strategy on one scenario; memory and seconds are means over seeds.

    The difference is its harmonic mean minus the baseline's, over the same queries and seeds; of
    median ranks that of the mean of old and new ones. ``recalls`` has the score after each stage,
    both directions averaged, None before birth; ``directions``, if they were asked for, that after
    the last stage by pair, in the order of the pair's ``directions``.
    ``vector_size`` is how many numbers an item has, None where runs do not say so.
    """

    strategy: str
    joint: bool
    seeds: tuple[int, ...]
    headline: Headline
    difference: Estimate | None
    memory_bytes: int
    seconds: float
    recalls: Mapping[str, tuple[Estimate | None, ...]]
    cumulative: bool = False
    vector_size: float | None = None
    directions: Mapping[str, tuple[Estimate | None, ...]] = field(default_factory=dict)

    @property
    def bound(self) -> bool:
        """Whether it trains all items, past ones too: an upper bound and no competitor."""
        return self.joint or self.cumulative


@dataclass(frozen=True, slots=True)
class ScenarioReport:
    """The strategies of one scenario, best harmonic mean first, and its pairs by name.

    ``chance`` is the mean score of old pairs in a random order, None without any; ``split`` is
    whose items were ranked, ``validation`` for trials of a search; ``few`` are roles with a pair
    that a handful of items were trained on or score.
    """

    arrivals: tuple[tuple[str, ...], ...]
    pairs: Mapping[str, PairFacts]
    rows: tuple[Row, ...]
    chance: float | None = None
    split: records.Split = "test"
    few: tuple[records.Role, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """All scenarios compared, sorted by name, and notes on the numbers, such as runs left out.

    ``metric`` is what was compared, one of :data:`~continual_mm.comparison.estimates.METRICS`.
    """

    baseline: str
    reports: Mapping[str, ScenarioReport]
    notes: tuple[str, ...]
    metric: str = "recall@1"


def compare(
    folders: Iterable[Path], *, baseline: str = "naive", metric: str = "recall@1"
) -> Comparison:
    """Compare every finished run at or below some folders by a metric, see :func:`compare_by`."""
    (found,) = compare_by(folders, (metric,), baseline=baseline)
    return found


def compare_by(
    folders: Iterable[Path],
    metrics: Iterable[str],
    *,
    baseline: str = "naive",
    directions: bool = False,
) -> tuple[Comparison, ...]:
    """Compare every finished run at or below some folders, by each of some metrics.

    Intervals are 95 % ones from 2,000 replicates of a paired bootstrap over test queries and seeds
    with a fixed seed of its own: the same runs give the same numbers. The interval of a single run
    covers the queries only.

    Args:
        folders: Those that ``run`` or ``export`` wrote to.
        metrics: By their names, or short ones such as ``r@1``.
        baseline: The strategy that differences are taken to.
        directions: Whether rows have the scores of directions as well.

    Raises:
        InputError: If there is no run, runs do not go together, or there is no such metric.
    """
    names = dict.fromkeys(map(metric_named, metrics))
    runs, left_out = collect(folders)
    groups = grouped(runs)
    return tuple(
        compared(groups, name, baseline=baseline, directions=directions, left_out=left_out)
        for name in names
    )


def compared(
    groups: Mapping[str, Mapping[str, Sequence[FinishedRun]]],
    metric: str,
    *,
    baseline: str,
    directions: bool,
    left_out: Sequence[str],
) -> Comparison:
    """Compare runs that are read, by scenario and strategy; see :func:`compare_by`."""
    reports: dict[str, ScenarioReport] = {}
    notes: dict[str, list[str]] = {}
    for scenario, strategies in groups.items():
        if next(iter(strategies.values()))[0].pairs:
            one = _Scenario(strategies, baseline, METRICS[metric], directions=directions)
            reports[scenario], found = one.report(), one.notes
        else:
            found = ["left out, a single modality has no pair to compare"]
        for text in found:
            notes.setdefault(text, []).append(scenario)
    told = [f"{first_few(names)}: {text}" for text, names in notes.items()]
    return Comparison(baseline, reports, (*left_out, *told), metric)


class _Scenario:
    """Computes the rows of one scenario, and notes on them."""

    def __init__(
        self,
        strategies: Mapping[str, Sequence[FinishedRun]],
        baseline: str,
        metric: Metric,
        *,
        directions: bool,
    ) -> None:
        self._strategies = strategies
        self._by_direction = directions
        self._baseline = baseline
        self._metric = metric
        self._sign = -1 if metric.median else 1  # of what is lost
        self.notes: list[str] = []
        every = [run for runs in strategies.values() for run in runs]
        self._first = every[0]
        self._pairs = self._first.pairs
        self._draws = Draws(every)
        self._joint = self._choose_joint()
        self._known: dict[tuple[str, tuple[int, ...]], Floats] = {}

    def report(self) -> ScenarioReport:
        """The scenario's rows, sorted."""
        if self._baseline not in self._strategies:
            self.notes.append(no_baseline(self._baseline, self._strategies))
        if single := [name for name, runs in self._strategies.items() if len(runs) == 1]:
            named = ", ".join(single)
            self.notes.append(f"only one seed of {named}; intervals then cover queries, not seeds")
        if cumulative := [name for name, runs in self._strategies.items() if runs[0].cumulative]:
            named = ", ".join(cumulative)
            self.notes.append(
                f"{named}: every past item is trained again, which no memory above counts"
            )
        self.notes += unequal_seeds(
            {name: [run.seed for run in runs] for name, runs in self._strategies.items()}
        )
        self._note_near_chance()
        self._note_what_repeats()
        few = self._note_few()
        self._note_no_retention()
        rows = sorted((self._row(name) for name in self._strategies), key=self._order)
        chance = old_chance(start([self._first], self._metric), self._pairs)
        known = None if np.isnan(chance) else chance
        return ScenarioReport(
            self._first.arrivals, self._pairs, tuple(rows), known, self._first.split, few
        )

    def _note_what_repeats(self) -> None:
        """A line for each pair whose items share recordings."""
        for name, facts in self._pairs.items():
            if facts.galleries:
                sides = (answer for _, answer in Pair.parse(name).directions)
                each = zip(facts.galleries, sides, strict=True)
                known = " and ".join(f"{size:,} different {side}" for size, side in each)
                self.notes.append(f"{name}: {known}; what is the same is asked and listed once")

    def _note_near_chance(self) -> None:
        """A line for each pair that some strategies trained without learning it."""
        found: dict[tuple[int, str], list[str]] = {}
        for name, runs in self._strategies.items():
            for each in sorted({each for run in runs for each in run.near_chance}):
                seeds = [run for run in runs if each in run.near_chance]
                found.setdefault(each, []).append(f"{name} ({len(seeds)} of {len(runs)} seeds)")
        for (stage, pair), names in sorted(found.items()):
            self.notes.append(
                f"{pair}, trained in stage {stage}, ended it near chance on validation items in "
                f"{', '.join(names)}: train longer, or look at the data"
            )

    def _note_few(self) -> tuple[records.Role, ...]:
        """A line for each pair that is not scored or of a handful of items; roles of the latter."""
        split = self._first.split
        for pair in self._first.unscored:
            self.notes.append(
                f"{pair}: not scored; no stage trains it, and no {split} item has both"
            )
        last = len(self._first.arrivals) - 1
        tested = {pair: len(self._first.ranked[last, pair].rows) for pair in self._pairs}
        found = [
            (pair, few_items(items, split)) for pair, items in tested.items() if items < HANDFUL
        ]
        every = [run for runs in self._strategies.values() for run in runs]
        for (stage, pair), items in sorted(fewest(every).items()):
            found.append((pair, f"stage {stage} trained it on {items} items, or as few"))
        for pair, text in found:
            self.notes.append(f"* {pair} ({self._pairs[pair].role}): {text}")
        return tuple({self._pairs[pair].role: None for pair, _ in found})

    def _note_no_retention(self) -> None:
        """A line for the strategies whose first score of an old pair says nothing."""
        old = [place for place, facts in enumerate(self._pairs.values()) if facts.role == "old"]
        if self._metric.median:
            return
        names: list[str] = []
        pairs: dict[str, None] = {}
        for name, runs in self._strategies.items():
            if runs[0].joint:
                continue
            learned = start(runs, self._metric).learned
            if lacking := [list(self._pairs)[place] for place in old if not learned[place]]:
                names.append(name)
                pairs |= dict.fromkeys(lacking)
        if names:
            self.notes.append(
                f"no retention of {', '.join(names)}: the first score of {', '.join(pairs)} is not "
                f"above chance by {ABOVE_CHANCE:g} standard errors over items"
            )

    def _row(self, strategy: str) -> Row:
        runs = self._strategies[strategy]
        seeds = tuple(run.seed for run in runs)
        recalls = self._recalls(strategy, seeds)
        begun = start(runs, self._metric)
        headline = {
            name: Estimate.of(values)
            for name, values in self._measures(recalls, begun).items()
            if name != "overall"
        }
        headline["intransigence"] = self._against(
            None if runs[0].joint else self._joint,
            strategy,
            lambda own, joint: self._sign * intransigence(own, joint, self._pairs),
        )
        for name in ("stability_gap", "mixed_recall", "earlier_recall"):
            headline[name] = Estimate.of(over_seeds([getattr(run, name) for run in runs]))
        return Row(
            strategy=strategy,
            joint=runs[0].joint,
            seeds=seeds,
            headline=Headline(**headline),
            difference=self._against(
                None if strategy == self._baseline else self._baseline,
                strategy,
                lambda own, other: (
                    self._measures(own)["overall"] - self._measures(other)["overall"]
                ),
            ),
            memory_bytes=round(np.mean([run.memory_bytes for run in runs])),
            seconds=float(np.mean([run.seconds for run in runs])),
            recalls={
                pair: tuple(map(Estimate.of, recalls[:, :, place].T))
                for place, pair in enumerate(self._pairs)
            },
            cumulative=runs[0].cumulative,
            vector_size=mean_known([run.vector_size for run in runs]),
            directions=self._directions(runs) if self._by_direction else {},
        )

    def _directions(self, runs: Sequence[FinishedRun]) -> Mapping[str, tuple[Estimate | None, ...]]:
        last = self._draws.directions(runs, self._metric)[:, -1]
        return {
            pair: tuple(map(Estimate.of, last[:, place].T))
            for place, pair in enumerate(self._pairs)
        }

    def _measures(self, recalls: Floats, begun: Start | None = None) -> dict[str, Floats]:
        return measures(recalls, self._pairs, begun, metric=self._metric)

    def _order(self, row: Row) -> tuple[float, float, str]:
        """Best harmonic mean first; where there is none, best new pairs."""
        harmonic, new = row.headline.harmonic_mean, row.headline.new_pairs
        best = -self._sign * new.mean if new else np.inf
        return (-harmonic.mean if harmonic else np.inf, best, row.strategy)

    def _against(
        self, other: str | None, strategy: str, measure: Callable[[Floats, Floats], Floats]
    ) -> Estimate | None:
        """A measure of a strategy's recalls and another one's, over the seeds that both have."""
        if other is None or other not in self._strategies:
            return None
        first, second = self._strategies[strategy], self._strategies[other]
        seeds = tuple(sorted({run.seed for run in first} & {run.seed for run in second}))
        if not seeds:
            return None
        return Estimate.of(measure(self._recalls(strategy, seeds), self._recalls(other, seeds)))

    def _recalls(self, strategy: str, seeds: tuple[int, ...]) -> Floats:
        """Recalls of a strategy over some of its seeds; computed once."""
        if (strategy, seeds) not in self._known:
            runs = [run for run in self._strategies[strategy] if run.seed in seeds]
            self._known[strategy, seeds] = self._draws.scores(runs, self._metric)
        return self._known[strategy, seeds]

    def _choose_joint(self) -> str | None:
        """The strategy that intransigence is taken to."""
        joint = [name for name, runs in self._strategies.items() if runs[0].joint]
        if len(joint) > 1 and "joint" not in joint:
            self.notes.append(f"several joint strategies, {', '.join(joint)}: no intransigence")
            return None
        return "joint" if "joint" in joint else next(iter(joint), None)


def no_baseline(baseline: str, strategies: Iterable[str]) -> str:
    """Why nothing is compared with a baseline that is none of the strategies."""
    if several := [name for name in strategies if name.startswith(f"{baseline} ")]:
        return f"the baseline {baseline} has several definitions: name one of {', '.join(several)}"
    return f"no finished run of the baseline {baseline}, hence no differences"


def unequal_seeds(seeds: Mapping[str, Sequence[int]]) -> Iterator[str]:
    """A line if strategies have different seeds, and which; most have those that come first."""
    names: dict[str, list[str]] = {}
    for name, known in seeds.items():
        names.setdefault(", ".join(map(str, sorted(known))), []).append(name)
    if len(names) > 1:
        most, *others = sorted(names, key=lambda each: -len(names[each]))
        lists = [f"{', '.join(names[each])}: {each}" for each in others]
        lists.append(f"{'all others' if len(names[most]) > 1 else names[most][0]}: {most}")
        yield (
            f"seeds differ ({'; '.join(lists)}): a difference is over the seeds that both "
            "strategies have, and there is none without any"
        )


def mean_known(values: Sequence[float | None]) -> float | None:
    """The mean, None if one is not known."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None
