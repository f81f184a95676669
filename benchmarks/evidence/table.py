"""Write what the results say as Markdown and CSV: ``README.md`` and ``summary.csv`` beside them.

    python benchmarks/evidence/table.py

The numbers of several scenarios are averaged replicate by replicate: each replicate resamples
queries and seeds in every scenario and takes the mean over scenarios then. Scenarios of a group
have the same test items and seeds, so a replicate draws the same ones in all of them.
"""

import argparse
import csv
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from plan import HERE, Group, Plan

from continual_mm.complaint import RefusedError
from continual_mm.runs.collect import grouped
from continual_mm.runs.estimates import Draws, Estimate, Floats, intransigence, measures
from continual_mm.runs.exported import read_exported
from continual_mm.runs.files import written
from continual_mm.runs.finished import FinishedRun

REFERENCES = ("recommended_128", "recommended", "recommended_32", "naive")
"""Whom differences are taken to: the first that is there."""

JOINT, PLAIN = "joint", "naive"

SHOWN = ("harmonic_mean", "old_pairs", "new_pairs", "emergent_pairs", "retention", "intransigence")

ABOUT = """\
Written by `benchmarks/evidence/table.py` from the runs beside it; `summary.csv` has the same
numbers with all intervals. R@1 in % on the test split, mean of both directions; `±` is half the
width of the 95 % interval of a paired bootstrap over queries and seeds. Retention is in %,
intransigence (what new pairs lack of joint training) and differences of the harmonic mean are in
percentage points, on the same queries and seeds. Memory is what is kept of the past, in items and
bytes. Step time is the median of the last stage's steps as a multiple of naive's. Where seeds are
given as 5/5/3, the scenarios have different numbers of runs, and where one of them has none there
is no mean. The interval of a single seed covers the queries only."""


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
    """

    def __init__(self, strategies: Mapping[str, Sequence[FinishedRun]]) -> None:
        self.strategies = strategies
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

    def step_time(self, strategy: str) -> float:
        """As a multiple of naive's; NaN without a naive run."""
        plain = self.strategies.get(PLAIN, ())
        return _step_seconds(self.strategies[strategy]) / _step_seconds(plain)

    def _seeds(self, strategy: str) -> tuple[int, ...]:
        return tuple(run.seed for run in self.strategies.get(strategy, ()))

    def _shared(self, strategy: str, other: str) -> tuple[int, ...]:
        return tuple(sorted(set(self._seeds(strategy)) & set(self._seeds(other))))

    def _recalls(self, strategy: str, seeds: tuple[int, ...]) -> Floats:
        if (strategy, seeds) not in self._known:
            runs = [run for run in self.strategies[strategy] if run.seed in seeds]
            self._known[strategy, seeds] = self._draws.recalls(runs)
        return self._known[strategy, seeds]


def _step_seconds(runs: Sequence[FinishedRun]) -> float:
    """Median over seeds, which a busy moment of the machine moves little; NaN if unknown."""
    known = [run.step_seconds for run in runs if run.step_seconds is not None]
    return float(np.median(known)) if known else np.nan


def lines(benches: Sequence[Bench], reference: str) -> list[Line]:
    """Every strategy averaged over some scenarios, best harmonic mean first.

    Args:
        benches: The scenarios.
        reference: Whom differences are taken to.
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
    step_time = float(np.mean([bench.step_time(strategy) for bench in benches]))
    return Line(strategy, seeds, estimates, _known(items), _known(size), _known(step_time))


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _order(line: Line) -> tuple[bool, float, str]:
    best = line.estimates.get("harmonic_mean")
    return best is None, -(best.mean if best else 0.0), line.strategy


def as_markdown(title: str, found: Iterable[Line], reference: str) -> str:
    """A heading and a table."""
    headings = (
        *("strategy", "seeds", "harmonic mean %", "old %", "new %", "emergent %", "retention %"),
        *("intransigence", f"difference to {reference}", "items", "memory", "step time"),
    )
    rows = [headings, (":--", *("--:" for _ in headings[1:])), *(_cells(line) for line in found)]
    return "\n".join([title, "", *(f"| {' | '.join(row)} |" for row in rows)])


def _cells(line: Line) -> tuple[str, ...]:
    same = len(set(line.seeds)) == 1
    return (
        line.strategy,
        str(line.seeds[0]) if same else "/".join(map(str, line.seeds)),
        *(_half(line.estimates.get(name)) for name in SHOWN),
        _range(line.estimates.get("difference")),
        "-" if line.memory_items is None else f"{line.memory_items:.0f}",
        "-" if line.memory_bytes is None else f"{line.memory_bytes / 1000:.0f} kB",
        "-" if line.step_time is None else f"{line.step_time:.2f}",
    )


def _half(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    return f"{100 * estimate.mean:z.1f}±{50 * (estimate.high - estimate.low):.1f}"


def _range(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    mean, low, high = (100 * end for end in (estimate.mean, estimate.low, estimate.high))
    return f"{mean:+z.1f} [{low:z.1f}, {high:z.1f}]"


MEASURES = (*SHOWN, "forgetting", "difference")
HEADINGS = (
    *("dataset", "group", "scenario", "strategy", "seeds", "reference"),
    *(f"{name}_{end}" for name in MEASURES for end in ("mean", "low", "high")),
    *("memory_items", "memory_bytes", "step_time"),
)


def as_records(
    group: Group, scenario: str, found: Iterable[Line], reference: str
) -> list[list[str]]:
    """Rows of ``summary.csv``, in percent and percentage points; empty where undefined."""
    return [
        [
            *(group.dataset, group.title, scenario, line.strategy),
            "/".join(map(str, line.seeds)),
            reference,
            *(end for name in MEASURES for end in _ends(line.estimates.get(name))),
            *(_plain(value) for value in (line.memory_items, line.memory_bytes, line.step_time)),
        ]
        for line in found
    ]


def _ends(estimate: Estimate | None) -> list[str]:
    if estimate is None:
        return ["", "", ""]
    return [f"{100 * end:z.3f}" for end in (estimate.mean, estimate.low, estimate.high)]


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def tables(
    group: Group, known: Mapping[str, Mapping[str, Sequence[FinishedRun]]]
) -> tuple[list[str], list[list[str]]]:
    """Markdown and records of a group: averaged over its scenarios, then each by itself.

    Args:
        group: From the plan.
        known: Scenario -> strategy -> runs.
    """
    present = [name for name in group.scenarios if name in known]
    if not present:
        return [], []
    benches = {name: Bench(known[name]) for name in present}
    reference = _reference(benches.values())
    views = {name: [bench] for name, bench in benches.items()}
    if len(present) > 1:
        views = {f"mean of {', '.join(present)}": list(benches.values()), **views}
    pages = [f"## {group.dataset}: {group.title}"]
    records: list[list[str]] = []
    for name, chosen in views.items():
        found = lines(chosen, reference)
        pages.append(as_markdown(f"### {name}", found, reference))
        records += as_records(group, name, found, reference)
    return pages, records


def _reference(benches: Iterable[Bench]) -> str:
    shared = set.intersection(*(set(bench.strategies) for bench in benches))
    return next((name for name in REFERENCES if name in shared), PLAIN)


def write(plan: Plan, folder: Path) -> None:
    """Write both files into the folder of the results.

    Raises:
        RefusedError: If the results are missing or damaged.
    """
    known = grouped(read_exported(folder))
    pages, records = ["# Results", ABOUT], [list(HEADINGS)]
    for group in plan.groups:
        some, rows = tables(group, known)
        pages += some
        records += rows
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(records)
    for name, contents in (
        ("README.md", "\n\n".join(pages) + "\n"),
        ("summary.csv", text.getvalue()),
    ):
        with written(folder / name) as temporary:
            temporary.write_text(contents, encoding="utf-8")


def main(given: Sequence[str] | None = None) -> int:
    """Do what the command line says; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--plan", type=Path, default=HERE / "plan.toml")
    asked = parser.parse_args(given)
    write(Plan(asked.plan), asked.results)
    print(f"written: {asked.results / 'README.md'}, {asked.results / 'summary.csv'}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RefusedError as error:
        sys.exit("\n".join(map(str, error.complaints)))
