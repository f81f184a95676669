"""Strategies side by side on one protocol, stage by stage: values, intervals, differences."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from continual_mm.comparison.collect import collect, grouped
from continual_mm.comparison.compare import no_baseline, unequal_seeds
from continual_mm.comparison.estimates import Estimate, Floats, query_weights, seed_weights
from continual_mm.metrics.answers import Answers, Measure, Series, by_group
from continual_mm.metrics.bootstrap import Counts, blocks
from continual_mm.runs.finished import FinishedRun
from continual_mm.system.errors import InputError, suggestion

_SEED = 1  # of the bootstrap; the same runs always have the same intervals
_NEVER = 1e100  # stands for an infinite rank, between which and others one may interpolate


@dataclass(frozen=True, slots=True)
class ProtocolRow:
    """One strategy after one 1-based stage: an estimate of each measure, None where undefined.

    The difference is the first one minus the baseline's, over the same queries and seeds;
    ``groups`` has the first one of every named group of queries, such as a task.
    """

    strategy: str
    stage: int
    seeds: tuple[int, ...]
    estimates: tuple[Estimate | None, ...]
    difference: Estimate | None
    groups: Mapping[str, Estimate | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SeriesReport:
    """One series in one scenario; rows by stage, best first; ``queries`` includes the missing."""

    scenario: str
    title: str
    queries: int
    measures: tuple[Measure, ...]
    rows: tuple[ProtocolRow, ...]
    missing: int = 0


@dataclass(frozen=True, slots=True)
class ProtocolComparison:
    """One protocol in all scenarios that have it, and notes such as on runs left out."""

    protocol: str
    baseline: str
    reports: tuple[SeriesReport, ...]
    notes: tuple[str, ...]


def compare_protocol(
    folders: Iterable[Path], protocol: str, *, baseline: str = "naive"
) -> ProtocolComparison:
    """Compare what a protocol found of every finished run at or below some folders.

    Intervals are 95 % ones of a paired bootstrap over seeds and queries (whole videos or tasks).
    """
    runs, notes = collect(folders)
    reports: list[SeriesReport] = []
    for scenario, strategies in grouped(runs).items():
        first = next(iter(strategies.values()))[0]
        for series in first.protocols.get(protocol, ()):
            reports += _report(scenario, strategies, protocol, series, baseline)
    if not reports:
        known = dict.fromkeys(name for run in runs for name in run.protocols)
        remedy = f"{suggestion(protocol, known)}there are {', '.join(known) or 'none'}"
        raise InputError.at(f"--protocol {protocol}", "no run was scored by it", remedy)
    rows = [row for report in reports for row in report.rows]
    if not any(row.strategy == baseline for row in rows):
        notes.append(no_baseline(baseline, dict.fromkeys(row.strategy for row in rows)))
    seeds: dict[str, Sequence[int]] = {}
    for row in rows:
        seeds[row.strategy] = max(seeds.get(row.strategy, ()), row.seeds, key=len)
    notes += unequal_seeds(seeds)
    if single := dict.fromkeys(row.strategy for row in rows if len(row.seeds) == 1):
        named = ", ".join(single)
        notes.append(f"only one seed of {named}; intervals then cover queries, not seeds")
    return ProtocolComparison(protocol, baseline, tuple(reports), tuple(notes))


def _report(
    scenario: str,
    strategies: Mapping[str, Sequence[FinishedRun]],
    protocol: str,
    series: Series,
    baseline: str,
) -> list[SeriesReport]:
    """The report of a series; none if no stage was scored."""
    found: dict[tuple[int, str], dict[int, Answers]] = {}
    for strategy, runs in strategies.items():
        for run in runs:
            for (stage, name, part), answers in run.judged.items():
                if (name, part) == (protocol, series.name):
                    found.setdefault((stage, strategy), {})[run.seed] = answers
    if not found:
        return []
    every = [answers for by_seed in found.values() for answers in by_seed.values()]
    units = every[0].units
    if not all(np.array_equal(units, answers.units) for answers in every):
        problem = f"runs of protocol '{protocol}' asked different queries"
        raise InputError.at(f"scenario '{scenario}'", problem, "compare them separately")
    weights = _weights(every)
    measured = {
        cell: {
            seed: np.stack([_measured(measure, answers, weights) for measure in series.measures])
            for seed, answers in by_seed.items()
        }
        for cell, by_seed in found.items()
    }
    rows = [
        ProtocolRow(
            strategy=strategy,
            stage=stage + 1,
            seeds=tuple(by_seed),
            estimates=tuple(map(_estimate, _over_seeds(by_seed, by_seed))),
            difference=None
            if strategy == baseline
            else _difference(by_seed, measured.get((stage, baseline), {})),
            groups=_groups(series, found[stage, strategy], weights),
        )
        for (stage, strategy), by_seed in measured.items()
    ]
    rows.sort(
        key=lambda row: (
            row.stage,
            -row.estimates[0].mean if row.estimates[0] else np.inf,
            row.strategy,
        )
    )
    missing = int((~np.isfinite(every[0].values[0])).sum())
    return [SeriesReport(scenario, series.title, len(units), series.measures, tuple(rows), missing)]


def _weights(every: Sequence[Answers]) -> Counts:
    """(1 + replicates, queries); those that share a recording are drawn together."""
    units = every[0].units
    if (recordings := every[0].recordings) is not None:
        units, place = np.unique(recordings, return_inverse=True)
        return query_weights(len(units), _SEED, len(units))[:, place]
    return query_weights(len(units), _SEED, len(units))


def _measured(measure: Measure, answers: Answers, weights: Counts) -> Floats:
    """(1 + replicates,)."""
    found = [measure.of(answers.values, weights[some].astype(float)) for some in blocks(weights)]
    return np.concatenate(found)


def _over_seeds(by_seed: Mapping[int, Floats], seeds: Iterable[int]) -> Floats:
    """(measures, 1 + replicates) the mean over drawn seeds."""
    values = np.stack([by_seed[seed] for seed in seeds])
    mean: Floats = np.einsum("rs,smr->mr", seed_weights(len(values)), values) / len(values)
    return mean


def _groups(
    series: Series, by_seed: Mapping[int, Answers], weights: Counts
) -> dict[str, Estimate | None]:
    """Of every group; replicates that drew none of its queries are left out."""
    each = {
        seed: by_group(series, answers, weights.astype(float)) if answers.groups else {}
        for seed, answers in by_seed.items()
    }
    estimates: dict[str, Estimate | None] = {}
    for name in next(iter(each.values())):
        if all(name in groups for groups in each.values()):
            (values,) = _over_seeds(
                {seed: groups[name][None] for seed, groups in each.items()}, each
            )
            drawn = np.isfinite(values[1:])
            estimates[name] = _estimate(np.concatenate([values[:1], values[1:][drawn]]))
    return estimates


def _difference(own: Mapping[int, Floats], other: Mapping[int, Floats]) -> Estimate | None:
    """Of the first measure, over the seeds that both have; None if there is none."""
    seeds = sorted(own.keys() & other.keys())
    if not seeds:
        return None
    return _estimate(_over_seeds(own, seeds)[0] - _over_seeds(other, seeds)[0])


def _estimate(replicates: Floats) -> Estimate | None:
    """An estimate; None where undefined. Ends are infinite where medians fall on missing items."""
    if not np.isfinite(replicates[0]):
        return None
    found = Estimate.of(np.minimum(replicates, _NEVER))
    if found is None or found.high < _NEVER / 2:
        return found
    return Estimate(found.mean, found.low if found.low < _NEVER / 2 else np.inf, np.inf)
