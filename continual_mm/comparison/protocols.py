"""Strategies side by side on one protocol, stage by stage: values, intervals, differences."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from continual_mm.comparison.collect import collect, grouped
from continual_mm.comparison.estimates import REPLICATES, Estimate, Floats, after_ones, seed_weights
from continual_mm.comparison.finished import FinishedRun
from continual_mm.metrics.answers import Answers, Measure, Series, by_group
from continual_mm.metrics.bootstrap import resample_weights
from continual_mm.system.errors import InputError, Problem, suggestion

_SEED = 1
"""Of the bootstrap; the same runs always have the same intervals."""
_NEVER = 1e100
"""Stands for an infinite rank, between which and others one may interpolate."""


@dataclass(frozen=True, slots=True)
class ProtocolRow:
    """One strategy after one stage.

    Attributes:
        strategy: Its name.
        stage: 1-based.
        seeds: The seeds of its finished runs, ascending.
        estimates: A value and interval for each measure; None where undefined.
        difference: The first measure minus the baseline's, over the same queries and seeds.
        groups: The first measure of every group of queries that has a name, such as a task.
    """

    strategy: str
    stage: int
    seeds: tuple[int, ...]
    estimates: tuple[Estimate | None, ...]
    difference: Estimate | None
    groups: Mapping[str, Estimate | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SeriesReport:
    """One series of the protocol in one scenario.

    Attributes:
        scenario: The scenario's name.
        title: What was asked.
        queries: How many queries there are, missing ones included.
        measures: What the columns are.
        rows: By stage, the best first.
        missing: How many of the queries are items that the dataset lacks.
    """

    scenario: str
    title: str
    queries: int
    measures: tuple[Measure, ...]
    rows: tuple[ProtocolRow, ...]
    missing: int = 0


@dataclass(frozen=True, slots=True)
class ProtocolComparison:
    """One protocol in all scenarios that have it.

    Attributes:
        protocol: Its name.
        baseline: The strategy that differences are taken to.
        reports: By scenario and series.
        notes: What a reader of the numbers should know, such as runs left out.
    """

    protocol: str
    baseline: str
    reports: tuple[SeriesReport, ...]
    notes: tuple[str, ...]


def compare_protocol(
    folders: Iterable[Path], protocol: str, *, baseline: str = "naive"
) -> ProtocolComparison:
    """Compare what a protocol found of every finished run at or below some folders.

    Intervals are 95 % ones from 2,000 replicates of a paired bootstrap over the protocol's queries
    and the seeds. Where videos or tasks are asked, these are resampled whole.

    Args:
        folders: Of a seed, a strategy, a scenario or of many scenarios, or what was exported.
        protocol: The protocol's name.
        baseline: The strategy that differences are taken to.

    Raises:
        InputError: If no run has such a protocol, or the runs cannot be compared.
    """
    runs, unfinished = collect(folders)
    notes = [f"{folder}: left out, the run is not finished" for folder in unfinished]
    reports: list[SeriesReport] = []
    for scenario, strategies in grouped(runs).items():
        first = next(iter(strategies.values()))[0]
        for series in first.protocols.get(protocol, ()):
            reports += _report(scenario, strategies, protocol, series, baseline)
    if not reports:
        known = dict.fromkeys(name for run in runs for name in run.protocols)
        remedy = f"{suggestion(protocol, known)}there are {', '.join(known) or 'none'}"
        raise InputError(Problem(f"--protocol {protocol}", "no run was scored by it", remedy))
    if not any(row.strategy == baseline for report in reports for row in report.rows):
        notes.append(f"no finished run of the baseline {baseline}, hence no differences")
    every = [row for report in reports for row in report.rows]
    single = dict.fromkeys(row.strategy for row in every if len(row.seeds) == 1)
    if single:
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
    first = next(iter(next(iter(found.values())).values()))
    units = first.units
    missing = int((~np.isfinite(first.values[0])).sum())
    for by_seed in found.values():
        for answers in by_seed.values():
            _check_units(units, answers, scenario, protocol)
    weights = _weights(len(units))
    measured = {
        cell: {seed: _measured(series, answers, weights) for seed, answers in by_seed.items()}
        for cell, by_seed in found.items()
    }
    rows = [
        ProtocolRow(
            strategy=strategy,
            stage=stage + 1,
            seeds=tuple(sorted(by_seed)),
            estimates=tuple(_estimate(each) for each in _over_seeds(by_seed, sorted(by_seed))),
            difference=None
            if strategy == baseline
            else _difference(by_seed, measured.get((stage, baseline), {})),
            groups=_groups(series, found[stage, strategy], weights),
        )
        for (stage, strategy), by_seed in measured.items()
    ]
    rows.sort(key=lambda row: (row.stage, -_first(row), row.strategy))
    return [SeriesReport(scenario, series.title, len(units), series.measures, tuple(rows), missing)]


def _check_units(
    units: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    answers: Answers,
    scenario: str,
    protocol: str,
) -> None:
    if not np.array_equal(units, answers.units):
        problem = f"runs of protocol '{protocol}' asked different queries"
        raise InputError(Problem(f"scenario '{scenario}'", problem, "compare them separately"))


def _weights(queries: int) -> Floats:
    """(1 + replicates, queries) how often each query counts; once each in the first."""
    drawn, _ = resample_weights(
        queries, 1, replicates=REPLICATES, generator=np.random.default_rng([_SEED, queries])
    )
    return after_ones(drawn)


def _measured(series: Series, answers: Answers, weights: Floats) -> Floats:
    """(measures, 1 + replicates) of one run."""
    return np.stack([measure.of(answers.values, weights) for measure in series.measures])


def _over_seeds(by_seed: Mapping[int, Floats], seeds: Sequence[int]) -> Floats:
    """(measures, 1 + replicates) the mean over drawn seeds."""
    values = np.stack([by_seed[seed] for seed in seeds])
    mean: Floats = np.einsum("rs,smr->mr", seed_weights(len(seeds)), values) / len(seeds)
    return mean


def _groups(
    series: Series, by_seed: Mapping[int, Answers], weights: Floats
) -> dict[str, Estimate | None]:
    """Of every group; a replicate that drew none of its queries says nothing of it."""
    seeds = sorted(by_seed)
    each = {seed: by_group(series, by_seed[seed], weights) for seed in seeds}
    estimates: dict[str, Estimate | None] = {}
    for name in each[seeds[0]]:
        if all(name in each[seed] for seed in seeds):
            (values,) = _over_seeds({seed: each[seed][name][None] for seed in seeds}, seeds)
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


def _first(row: ProtocolRow) -> float:
    first = row.estimates[0]
    return first.mean if first else -np.inf
