"""Measure how long a step of each strategy takes, as a multiple of naive's: ``step_times.csv``.

    python benchmarks/evidence/step_time.py --data DIR

Runs of the evidence share the machine's cores, so their own clocks say little about a strategy.
Here one process trains one strategy after the other, each a few steps a stage, and all of them once
before any of them again. Leave the machine alone meanwhile.
"""

import argparse
import csv
import io
import os
import statistics
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from plan import HERE, Bound, Plan

from continual_mm.data import registry as datasets
from continual_mm.data.dataset import Dataset
from continual_mm.runs.finished import read_finished
from continual_mm.runs.run import run_specified
from continual_mm.runs.specification import Specification, opened
from continual_mm.system.errors import InputError, Problem
from continual_mm.system.files import atomic_write

PLAIN = "naive"
NAME = "step_times.csv"
HEADINGS = ("scenario", "strategy", "rounds", "milliseconds", "multiple_of_naive")

Times = dict[tuple[str, str], list[float]]
"""Scenario and strategy -> seconds of a step in each round."""


def shorter(planned: Specification, steps: int) -> Specification:
    """The same with fewer steps in every stage."""
    training = planned.scenario.training.model_copy(update={"steps": steps, "warmup_steps": 0})
    stages = tuple(stage.model_copy(update={"steps": None}) for stage in planned.scenario.stages)
    scenario = planned.scenario.model_copy(update={"training": training, "stages": stages})
    return replace(planned, opened=opened(scenario, planned.opened.card))


def measure(planned: Specification, dataset: Dataset) -> float:
    """Seconds of a step of the last stage, the median over the stage."""
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"device": "cpu", "checkpoint_every": 0, "board": False}
        run_specified(planned, dataset, Path(folder), **options)
        found = read_finished(Path(folder) / f"{planned}").step_seconds
    if found is None:
        raise InputError(Problem(f"{planned}", "no two steps to time", "give more --steps"))
    return found


def measured(planned: Sequence[Specification], rounds: int) -> Times:
    """All runs in turn, as many times as there are rounds; each prints a line."""
    scenarios = {run.scenario.name: run.scenario for run in planned}
    known = {
        name: datasets.load(one.dataset, folder=Path(one.folder)) for name, one in scenarios.items()
    }
    times: Times = {}
    for number in range(1, rounds + 1):
        for one in planned:
            seconds = measure(one, known[one.scenario.name])
            times.setdefault((one.scenario.name, one.strategy.name), []).append(seconds)
            print(f"round {number}: {one} {1e3 * seconds:.1f} ms", flush=True)
    return times


def as_csv(times: Times) -> str:
    """Rows of the file; multiples are taken within a round, and their median is written."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(HEADINGS)
    for (scenario, strategy), found in times.items():
        plain = times[scenario, PLAIN]
        multiple = statistics.median(a / b for a, b in zip(found, plain, strict=True))
        milliseconds = 1e3 * statistics.median(found)
        rows.writerow([scenario, strategy, len(found), f"{milliseconds:.2f}", f"{multiple:.3f}"])
    return text.getvalue()


def beside(text: str, kept: str) -> str:
    """Rows of the file as measured now, and those kept that are of other strategies."""
    rows = list(csv.reader(io.StringIO(text)))
    fresh = {(row[0], row[1]): row for row in rows[1:]}
    old = {(row[0], row[1]): row for row in list(csv.reader(io.StringIO(kept)))[1:]}
    # Naive is what the others of its round were divided by.
    new = {key: row for key, row in fresh.items() if key[1] != PLAIN or key not in old}
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([rows[0], *(old | new).values()])
    return written.getvalue()


def step_times(folder: Path) -> dict[tuple[str, str], float]:
    """Scenario and strategy -> multiple of naive's, as written; empty if nothing was measured."""
    path = folder / NAME
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as stream:
        return {
            (row["scenario"], row["strategy"]): float(row["multiple_of_naive"])
            for row in csv.DictReader(stream)
        }


def chosen(plan: Plan, parts: Iterable[str], data: Path | None) -> list[Specification]:
    """One run of each strategy on each scenario of some parts, without bounds."""
    return [
        one
        for part in parts
        for one in plan.runs(part, data)
        if one.seed == 0 and not isinstance(one, Bound)
    ]


def main(given: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = os.environ.get("CONTINUAL_MM_TEST_DATA")
    parser.add_argument("--data", type=Path, default=Path(data) if data else None)
    parser.add_argument("--plan", type=Path, default=HERE / "plan.toml")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--steps", type=int, default=40, help="steps of each stage (40)")
    parser.add_argument("--rounds", type=int, default=3, help="times that all are measured (3)")
    parser.add_argument(
        "--only", nargs="+", default=(), help="strategies to measure; the others' rows are kept"
    )
    asked = parser.parse_args(given)
    torch.set_num_threads(1)
    planned = [
        shorter(one, asked.steps)
        for one in chosen(Plan(asked.plan), ("full", "elsewhere"), asked.data)
        if not asked.only or one.strategy.name in {PLAIN, *asked.only}
    ]
    text = as_csv(measured(planned, asked.rounds))
    path = asked.results / NAME
    if asked.only and path.is_file():
        text = beside(text, path.read_text(encoding="utf-8"))
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit("\n".join(map(str, error.problems)))
