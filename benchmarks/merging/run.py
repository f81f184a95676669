"""Every way to merge on the three scenarios for it, with and without healing.

python benchmarks/merging/run.py FOLDER [--seeds 3] [--jobs 2]     an hour on two cores

It trains into the folder, goes on where it was stopped, and writes results.csv there.
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from continual_mm.cli.progress import RunProgress
from continual_mm.comparison.collect import collect
from continual_mm.definitions import catalog
from continual_mm.definitions.scenario import Strategy
from continual_mm.runs.finished import FinishedRun
from continual_mm.runs.opening import open_scenario, open_strategy, read_settings
from continual_mm.runs.parallel import Task, run_many
from continual_mm.runs.specification import Specification

PAIRS = {  # of each scenario: that of the first stage, of the second, and the one never paired
    "vt_at_merge": ("text-video", "audio-text", "audio-video"),
    "av_vt_merge": ("audio-video", "text-video", "audio-text"),
    "at_av_merge": ("audio-text", "audio-video", "text-video"),
}
ROLES = ("old", "new", "never paired")
FORMS = {"plain": ("training.steps=300", "stage.3.steps=0"), "healed": ()}
"""Settings of the scenarios; healed as they are shipped."""

WAYS = (
    *(("none", "average"), ("none", "keep-both"), ("transport", "keep-a")),
    *(("transport", "average"), ("procrustes", "keep-a"), ("procrustes", "keep-both")),
)
SHIPPED = ("naive", "freeze", "recommended", "joint")
COLUMNS = ("form", "scenario", "strategy", "seed", "role", "recall")
OPTIONS = {"board": False, "checkpoint_every": 0, "device": "cpu"}


def strategies() -> Iterator[Strategy]:
    """Ways to merge, named by what they do, and strategies that train in one space."""
    for align, shared in WAYS:
        name = f"{align}_{shared}".replace("-", "_")
        yield Strategy(name=name, plugins={"merge": {"align": align, "shared": shared}})
    for name in SHIPPED:
        yield open_strategy(catalog.find("strategies", name))


def tasks(folder: Path, seeds: int) -> Iterator[Task]:
    for seed in range(seeds):
        for form, settings in FORMS.items():
            for name in PAIRS:
                opened = open_scenario(catalog.find("scenarios", name), read_settings(settings))
                for strategy in strategies():
                    yield Task(Specification(opened, strategy, seed), folder / form, OPTIONS)


def recalls(run: FinishedRun) -> Iterator[float]:
    """R@1 of each role at the end, the mean of both directions."""
    last = len(run.arrivals) - 1
    for pair in PAIRS[run.scenario]:
        yield float(np.mean(run.ranked[last, pair].ranks == 0))


def write(folder: Path) -> None:
    """Write results.csv of what is finished."""
    with (folder / "results.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for form in FORMS:
            runs, _ = collect([folder / form])
            for run in sorted(runs, key=lambda run: (run.scenario, run.strategy, run.seed)):
                for role, recall in zip(ROLES, recalls(run), strict=True):
                    about = form, run.scenario, run.strategy, run.seed
                    writer.writerow((*about, role, f"{recall:.6g}"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    todo = [*tasks(asked.folder, asked.seeds)]
    with RunProgress(len(todo)) as progress:
        run_many(todo, jobs=asked.jobs, threads=1, reporter=progress)
    write(asked.folder)


if __name__ == "__main__":
    main()
