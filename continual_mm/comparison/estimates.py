"""From the ranks of a strategy's runs to means and intervals, replicate by replicate.

The first replicate is the data as they are and gives the mean, the others resample queries and
seeds and give the interval. A measure is computed within each from means over seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import numpy as np
import numpy.typing as npt

from continual_mm.metrics import forgetting
from continual_mm.metrics.answers import weighted_mean, weighted_median_rank
from continual_mm.metrics.bootstrap import (
    Counts,
    blocks,
    interval,
    joined,
    resample_weights,
    weighted_recall,
)
from continual_mm.metrics.chance import (
    chance_median_rank,
    chance_recall_at,
    chance_reciprocal_rank,
)
from continual_mm.runs.finished import FinishedRun, PairFacts, Ranked
from continual_mm.runs.records import Role
from continual_mm.system.errors import InputError, suggestion

Floats = npt.NDArray[np.float64]

REPLICATES = 2000
_SEED = 0  # of the bootstrap; the same runs always have the same intervals


@dataclass(frozen=True, slots=True)
class Metric:
    """What queries are worth by the 0-based ranks of their partners.

    ``heading`` is its name in tables, ``of`` what a query is worth, ``chance`` its score in a
    random order of so many items, so many of which are right. The score of many is their mean, a
    fraction from 0 to 1; with ``median`` it is their median, a rank from 1, of which the lowest is
    best.
    """

    heading: str
    of: Callable[[Floats], npt.NDArray[np.float64] | npt.NDArray[np.bool_]]
    chance: Callable[[int, float], float]
    median: bool = False

    @property
    def unit(self) -> str:
        """What stands behind a heading: fractions are shown in percent."""
        return "" if self.median else " %"

    @property
    def scale(self) -> float:
        """What a score is multiplied by where it is shown."""
        return 1 if self.median else 100

    def values(self, ranks: Floats) -> Floats:
        """What each query is worth; NaN where there is no rank."""
        return np.where(np.isnan(ranks), np.nan, self.of(ranks))


def _recall(k: int) -> Metric:
    return Metric(f"R@{k}", lambda ranks: ranks < k, lambda n, right: chance_recall_at(k, n, right))


RECALL_AT_1 = _recall(1)
METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "recall@1": RECALL_AT_1,
        "recall@5": _recall(5),
        "recall@10": _recall(10),
        "mean_reciprocal_rank": Metric(
            "MRR", lambda ranks: 1 / (ranks + 1), chance_reciprocal_rank
        ),
        "median_rank": Metric("MedR", lambda ranks: ranks + 1, chance_median_rank, median=True),
    }
)
"""By the names that ``scores.json`` has for them."""

SHORT: Mapping[str, str] = MappingProxyType(
    {"r@1": "recall@1", "r@5": "recall@5", "r@10": "recall@10"}
    | {"mrr": "mean_reciprocal_rank", "medr": "median_rank"}
)
"""Short name of a metric -> its name."""


def metric_named(name: str) -> str:
    """The name of a metric, given that or a short one, in capitals or not.

    >>> metric_named("R@1"), metric_named("median_rank")
    ('recall@1', 'median_rank')

    Raises:
        InputError: If there is no such metric.
    """
    given = name.lower()
    if (found := SHORT.get(given, given)) in METRICS:
        return found
    remedy = f"{suggestion(given, (*SHORT, *METRICS))}there are {', '.join(SHORT)}"
    raise InputError.at("metric", f"{name!r} is unknown", remedy)


ABOVE_CHANCE = 4.0
"""Standard errors over items that a score must lie above chance to be called learned.

It is then known to about half of what lies above chance; a share of less is any number.
"""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measure of the data as they are, and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, replicates: Floats) -> Self | None:
        """The estimate from (1 + replicates,) values; None if the first is undefined."""
        low, high = interval(replicates[1:])
        if np.isnan([replicates[0], low, high]).any():
            return None
        return cls(float(replicates[0]), float(low), float(high))


class Draws:
    """The resampled queries and seeds of a scenario, the same for all its strategies.

    ``rows`` are the (queries,) dataset rows of the test items of any pair, ascending. Those that
    share a recording are drawn together, since they are found or missed together.
    """

    def __init__(self, runs: Sequence[FinishedRun]) -> None:
        """Draw for all runs of the scenario, which has a pair; pairs may have different items."""
        lists = [ranked.rows for run in runs for ranked in run.ranked.values()]
        self.rows = np.unique(np.concatenate(lists))
        drawn = np.arange(len(self.rows))
        for ranked in _alike(runs).values():
            if ranked.recordings is not None:
                own = -1 - np.arange(len(self.rows))
                own[np.searchsorted(self.rows, ranked.rows)] = ranked.recordings
                drawn = joined(drawn, own)
        units, place = np.unique(drawn, return_inverse=True)
        weights = query_weights(len(units), _SEED)
        self._queries = weights if len(units) == len(self.rows) else weights[:, place]

    def scores(self, runs: Sequence[FinishedRun], metric: Metric = RECALL_AT_1) -> Floats:
        """A metric of every pair at every stage end, mean over both directions and the seeds given.

        For equally many runs the same places are drawn: give the runs of strategies in the same
        order of seeds. The scores are (1 + replicates, stages, pairs); NaN before birth, where
        joint training has no score, and where a replicate drew none of a pair's items.
        """
        if metric.median:
            mean: Floats = self.directions(runs, metric).mean(axis=-1)
            return mean
        return self._means(runs, metric)

    def directions(self, runs: Sequence[FinishedRun], metric: Metric = RECALL_AT_1) -> Floats:
        """As :meth:`scores`, direction by direction: (1 + replicates, stages, pairs, 2).

        They are in the order of :attr:`~continual_mm.definitions.modality.Pair.directions`.
        """
        stages, pairs = len(runs[0].arrivals), list(runs[0].pairs)
        seeds = seed_weights(len(runs))
        found = np.full((len(runs), len(seeds), stages, len(pairs), 2), np.nan)
        for place, run in enumerate(runs):
            for (stage, pair), ranked in run.ranked.items():
                weights = self._queries[:, np.searchsorted(self.rows, ranked.rows)]
                for way, ranks in enumerate(ranked.ranks):
                    cell = found[place, :, stage, pairs.index(pair), way]
                    for some in blocks(weights):
                        cell[some] = _score(metric, ranks, weights[some].astype(np.float64))
        cells = found.reshape(len(runs), len(seeds), -1)
        return _mean_over_seeds(cells, seeds).reshape(found.shape[1:])

    def _means(self, runs: Sequence[FinishedRun], metric: Metric) -> Floats:
        stages, pairs = len(runs[0].arrivals), list(runs[0].pairs)
        every = [ranked.ranks for run in runs for ranked in run.ranked.values()]
        # Where both directions have the same queries, one mean over both is taken.
        ways = 2 if any(np.isnan(ranks).any() for ranks in every) else 1
        found = np.full((len(runs), stages, len(pairs), ways, len(self.rows)), np.nan)
        for place, run in enumerate(runs):
            for (stage, pair), ranked in run.ranked.items():
                queries = np.searchsorted(self.rows, ranked.rows)
                values = metric.values(ranked.ranks)
                values = values.mean(axis=0, keepdims=True) if ways == 1 else values
                found[place, stage, pairs.index(pair)][:, queries] = values
        cells = found.reshape(len(runs), -1, len(self.rows))
        recall = weighted_recall(cells, self._queries, seed_weights(len(runs)))
        mean: Floats = recall.reshape(-1, stages, len(pairs), ways).mean(axis=-1)
        return mean


def _score(metric: Metric, ranks: Floats, weights: Floats) -> Floats:
    """(replicates,) the score of some ranks in every replicate."""
    if metric.median:
        return weighted_median_rank(ranks, weights)
    return weighted_mean(metric.values(ranks), weights)


def _mean_over_seeds(scores: Floats, seeds: Floats) -> Floats:
    """(seeds, replicates, cells) -> (replicates, cells), of those seeds that have a score."""
    known = ~np.isnan(scores)
    sums = np.einsum("rs,src->rc", seeds, np.where(known, scores, 0.0))
    counts = np.einsum("rs,src->rc", seeds, known.astype(np.float64))
    found = np.full(sums.shape, np.nan)
    np.divide(sums, counts, out=found, where=counts > 0)
    return found


def _alike(runs: Sequence[FinishedRun]) -> dict[tuple[int, str], Ranked]:
    """Cell -> its first run's ranks; runs in which other rows share recordings are refused."""
    found: dict[tuple[int, str], Ranked] = {}
    for run in runs:
        for cell, ranked in run.ranked.items():
            first = found.setdefault(cell, ranked)
            if (first.recordings is None) != (ranked.recordings is None):
                problem = "copies of a recording were counted as wrong answers, in others as one"
                raise InputError.at(run.folder, problem, "run what is older again")
    return found


@dataclass(frozen=True, slots=True)
class Start:
    """How the pairs of a scenario, in their order, begin.

    ``chance`` has the score of a random order of each, ``learned`` whether its score at birth is
    above that, by more than :data:`ABOVE_CHANCE` standard errors over items.
    """

    chance: Floats
    learned: npt.NDArray[np.bool_]


def start(runs: Sequence[FinishedRun], metric: Metric = RECALL_AT_1) -> Start:
    """How the pairs of some seeds of one strategy begin; a pair without a first score is none."""
    pairs = runs[0].pairs
    chance, learned = np.zeros(len(pairs)), np.zeros(len(pairs), dtype=bool)
    for place, (name, facts) in enumerate(pairs.items()):
        last = len(runs[0].arrivals) - 1
        items = len(runs[0].ranked[last, name].rows)
        galleries = facts.galleries or (items,)
        chance[place] = np.mean([metric.chance(size, facts.chance * size) for size in galleries])
        born = [run.ranked[facts.birth, name] for run in runs if (facts.birth, name) in run.ranked]
        if born and items > 1:
            mean, error = _mean_and_error(born, metric)
            learned[place] = mean - ABOVE_CHANCE * error > chance[place]
    return Start(chance, learned)


def _mean_and_error(seeds: Sequence[Ranked], metric: Metric) -> tuple[float, float]:
    """Mean of a pair over directions and seeds, and its standard error over recordings."""
    values = np.mean([metric.values(one.ranks) for one in seeds], axis=0)
    apart = seeds[0].rows if seeds[0].recordings is None else seeds[0].recordings
    _, unit = np.unique(apart, return_inverse=True)
    # In each of the directions, some of which may not ask about a recording.
    each = [_mean_of_units(way, unit) for way in values]
    spread = np.nanmean(each, axis=0).std(ddof=1) if len(each[0]) > 1 else np.inf
    return float(np.nanmean(values, axis=1).mean()), float(spread / np.sqrt(len(each[0])))


def _mean_of_units(values: Floats, unit: npt.NDArray[np.intp]) -> Floats:
    """(units,) mean of the (n,) values of each unit, 0..units-1, without NaN; NaN if it has none.

    >>> _mean_of_units(np.array([1.0, 0.0, np.nan]), np.array([0, 0, 1])).tolist()
    [0.5, nan]
    """
    known = ~np.isnan(values)
    count = np.bincount(unit, known)
    found = np.full(len(count), np.nan)
    np.divide(np.bincount(unit, np.where(known, values, 0.0)), count, out=found, where=count > 0)
    return found


def measures(
    scores: Floats,
    pairs: Mapping[str, PairFacts],
    begun: Start | None = None,
    *,
    metric: Metric = RECALL_AT_1,
) -> dict[str, Floats]:
    """The headline measures of a strategy in every replicate: name -> (1 + replicates,).

    The mean score after the last stage by role, the harmonic mean of old and new ones,
    ``forgetting`` and ``retention`` of old ones; NaN where undefined, as retention is where an old
    pair had learned nothing. ``scores`` are in the order of ``pairs``; without ``begun`` they are
    R@1, and each pair has learned something. Of median ranks there are no harmonic mean and no
    retention, and ``overall`` is the mean of old and new ones; else it is the harmonic mean.
    """
    old, new, emergent = (_mean(scores[:, -1], pairs, r) for r in ("old", "new", "emergent"))
    births = np.array([facts.birth for facts in pairs.values()], dtype=np.int64)
    if metric.median:
        unknown = np.full(len(scores), np.nan)
        least = np.ones(len(births))
        lost = _by_replicate(lambda s, b, _: forgetting.forgetting(-s, b), scores, births, least)
        return {
            "overall": (old + new) / 2,
            "old_pairs": old,
            "new_pairs": new,
            "emergent_pairs": emergent,
            "forgetting": _mean(lost, pairs, "old"),
            "harmonic_mean": unknown,
            "retention": unknown,
        }
    both = zip(old.tolist(), new.tolist(), strict=True)
    harmonic = np.array([forgetting.harmonic_mean(a, b) for a, b in both])
    chance = np.array([facts.chance for facts in pairs.values()])
    given = scores, births, chance if begun is None else begun.chance
    lost = _by_replicate(lambda s, b, _: forgetting.forgetting(s, b), *given)
    kept = _by_replicate(lambda s, b, c: forgetting.retention(s, b, chance=c), *given)
    if begun is not None:
        kept[:, ~begun.learned] = np.nan
    return {
        "overall": harmonic,
        "harmonic_mean": harmonic,
        "old_pairs": old,
        "new_pairs": new,
        "emergent_pairs": emergent,
        "retention": _mean(kept, pairs, "old"),
        "forgetting": _mean(lost, pairs, "old"),
    }


def old_chance(begun: Start, pairs: Mapping[str, PairFacts]) -> float:
    """Mean score of old pairs in a random order; NaN if there is no old pair."""
    return float(_mean(begun.chance[None], pairs, "old")[0])


def intransigence(scores: Floats, joint: Floats, pairs: Mapping[str, PairFacts]) -> Floats:
    """What learning late cost the new pairs, (1 + replicates,); positive means held back.

    It is the mean of joint minus learned after the last stage, over the same seeds.
    """
    births = np.zeros(len(pairs), dtype=np.int64)
    held = _by_replicate(forgetting.intransigence, scores[:, -1:], births, joint[:, -1])
    return _mean(held, pairs, "new")


def over_seeds(values: Sequence[float]) -> Floats:
    """The mean of a number that each seed's run has, in every replicate.

    (1 + replicates,), constant for a single seed; NaN unless every run has one.
    """
    mean: Floats = (seed_weights(len(values)) * np.array(values)).mean(axis=1)
    return mean


def _mean(values: Floats, pairs: Mapping[str, PairFacts], role: Role) -> Floats:
    """Mean over the pairs of one role: (replicates, pairs) -> (replicates,)."""
    chosen = [place for place, facts in enumerate(pairs.values()) if facts.role == role]
    if not chosen:
        return np.full(len(values), np.nan)
    mean: Floats = values[:, chosen].mean(axis=1)
    return mean


def _by_replicate(
    measure: Callable[[Floats, npt.NDArray[np.int64], Floats], Floats],
    recalls: Floats,
    births: npt.NDArray[np.int64],
    other: Floats,
) -> Floats:
    """(replicates, pairs) of a measure of (stages, pairs), as if each replicate were more pairs.

    The measure takes scores, births and one more number per pair. NaN where a score is missing.
    """
    replicates, stages, pairs = recalls.shape
    scores = recalls.transpose(1, 0, 2).reshape(stages, -1)
    born = np.tile(births, replicates)
    numbers = np.broadcast_to(other, (replicates, pairs)).reshape(-1)
    whole = ~(np.isnan(scores) & (np.arange(stages)[:, None] >= born)).any(axis=0)
    found = np.full(replicates * pairs, np.nan)
    found[whole] = measure(scores[:, whole], born[whole], numbers[whole])
    return found.reshape(replicates, pairs)


def query_weights(queries: int, *seed: int) -> Counts:
    """(1 + replicates, queries), those of the data as they are first."""
    return _weights(queries, 1, seed)[0]


def seed_weights(seeds: int) -> Floats:
    """(1 + replicates, seeds), the same whenever there are as many."""
    return _weights(1, seeds, (_SEED, seeds))[1]


def _weights(queries: int, seeds: int, seed: tuple[int, ...]) -> tuple[Counts, Floats]:
    generator = np.random.default_rng(seed)
    first, second = resample_weights(queries, seeds, replicates=REPLICATES, generator=generator)
    return (
        np.concatenate([np.ones((1, queries), first.dtype), first]),
        np.concatenate([np.ones((1, seeds)), second]),
    )
