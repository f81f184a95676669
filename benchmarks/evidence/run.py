"""Train the missing runs of the plan and add them to the results; resumes when interrupted.

    python benchmarks/evidence/run.py --jobs 2 --data DIR

A run whose result is there under the same definition is not trained again, wherever it was trained.
"""

import argparse
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from bounds import combine
from plan import HERE, Bound, Plan

from continual_mm.cli.progress import RunProgress
from continual_mm.comparison.export import add, exported
from continual_mm.comparison.variants import differing
from continual_mm.runs.finished import FinishedRun, read_finished
from continual_mm.runs.folder import RunFolder
from continual_mm.runs.parallel import Outcome, Task, run_many
from continual_mm.runs.reporter import RunReporter
from continual_mm.runs.specification import Specification
from continual_mm.system.errors import InputError

OPTIONS = {"device": "cpu", "checkpoint_every": 0, "board": False}
"""Options that save time and change no number."""

EXPORT_EVERY = 60.0
"""Seconds after which finished runs are added to the results."""

INTERRUPTED = 130


class Results:
    """The exported runs, and finished ones that are still to be added to them.

    Other processes may add to the same folder: their runs stay.

    Args:
        folder: Of the export.
        slim: Whether what a comparison does not need is removed from an exported run's folder.
        replace: Whether runs of another definition go where these come; else they are refused.

    Attributes:
        runs: Those that were there when the folder was last read.
        slim: As given.
    """

    def __init__(self, folder: Path, *, slim: bool, replace: bool = False) -> None:
        self._replace = replace
        self._folder = folder
        self.slim = slim
        self._queued: list[Path] = []
        self._written = time.monotonic()
        self.runs = exported(folder)

    def add(self, run: Path) -> None:
        """Queue a finished run, and write the queue every :data:`EXPORT_EVERY` seconds."""
        self._queued.append(run)
        if time.monotonic() - self._written >= EXPORT_EVERY:
            self.write()

    def write(self) -> None:
        """Write the queued runs."""
        if self._queued:
            found = [read_finished(path) for path in self._queued]
            self.runs = add(found, self._folder, force=self._replace).runs
        if self.slim:
            for path in self._queued:
                for heavy in ("checkpoints", "events"):
                    shutil.rmtree(path / heavy, ignore_errors=True)
        self._queued.clear()
        self._written = time.monotonic()


class Work:
    """What there is to train, and what becomes of it: a result, or a member of a bound.

    Args:
        todo: Missing runs.
        out: Where runs lie; members of bounds are in ``members`` there until the bound is made.
        results: Where finished runs are added.

    Attributes:
        tasks: What is trained, in the order of ``todo``.
    """

    def __init__(self, todo: Sequence[Specification], out: Path, results: Results) -> None:
        self._out = out
        self._results = results
        self._bounds: dict[Path, tuple[Bound, list[Path]]] = {}
        self._made: list[Path] = []
        self.tasks: list[Task] = []
        for run in todo:
            if not isinstance(run, Bound):
                self.tasks.append(Task(run, out, OPTIONS))
            elif RunFolder(out / run.path).finished:
                self._made.append(out / run.path)
            else:
                place = out / "members" / run.strategy.name
                members = [Task(one, place, OPTIONS) for one in run.members]
                folders = [one.folder for one in members]
                self._bounds |= dict.fromkeys(folders, (run, folders))
                self.tasks += members

    def begin(self) -> None:
        """Add bounds that an interrupted process has made."""
        for path in self._made:
            self._results.add(path)

    def finished(self, run: Path) -> None:
        """A run was trained, now or by an interrupted process; a bound is made of its last one."""
        if run not in self._bounds:
            self._results.add(run)
            return
        bound, folders = self._bounds[run]
        if not all(RunFolder(path).finished for path in folders):
            return

        combine(bound, folders, self._out / bound.path)
        self._results.add(self._out / bound.path)
        if self._results.slim:
            for path in folders:
                shutil.rmtree(path)


class Reporter(RunProgress):
    """Shows the progress of runs, and hands on finished ones."""

    def __init__(self, work: Work) -> None:
        super().__init__(len(work.tasks))
        self._work = work

    def run_reporter(self, run: str) -> RunReporter:
        """The reporter of the display, which also hands on the run."""
        return _Exporter(super().run_reporter(run), Path(run), self._work)

    def skips(self, run: str) -> None:
        """Hand on a run that was finished but not exported by an interrupted process."""
        super().skips(run)
        self._work.finished(Path(run))


class _Exporter(RunReporter):
    """Forwards every event to the display, and hands on the finished run."""

    def __init__(self, display: RunReporter, folder: Path, work: Work) -> None:
        self._display = display
        self._folder = folder
        self._work = work

    def begins(self, run: str, stages: int, steps: int) -> None:
        """Forward."""
        self._display.begins(run, stages, steps)

    def resumes(self, stage: int, step: int) -> None:
        """Forward."""
        self._display.resumes(stage, step)

    def steps(self, count: int) -> None:
        """Forward."""
        self._display.steps(count)

    def scored(self, stage: int, recalls: dict[str, float]) -> None:
        """Forward."""
        self._display.scored(stage, recalls)

    def warns(self, text: str) -> None:
        """Forward."""
        self._display.warns(text)

    def ends(self, seconds: float) -> None:
        """The run is finished."""
        self._display.ends(seconds)
        self._work.finished(self._folder)


def task_differences(run: Specification, found: FinishedRun) -> list[str]:
    """Keys in which the scenario of a planned run, or its data, are not those of a result."""
    wanted = run.identity
    task = {key: found.task[key] for key in ("scenario", "data")}
    return list(differing({key: wanted[key] for key in task}, task))


def differences(run: Specification, found: FinishedRun) -> list[str]:
    """Keys in which a planned run is not what was trained under its name."""
    return [
        *task_differences(run, found),
        *differing(run.identity["strategy"], found.protection),
    ]


def missing_runs(
    planned: Sequence[Specification], known: Sequence[FinishedRun]
) -> tuple[list[Specification], dict[str, list[str]]]:
    """Missing runs, and what there are results of with another definition: name -> keys.

    That may be a run, or a scenario: what is trained on it now does not go with its results.
    """
    names = {f"{run.scenario}/{run.strategy}/seed-{run.seed}": run for run in known}
    stale = {
        f"{run}": keys
        for run in planned
        if f"{run}" in names and (keys := differences(run, names[f"{run}"]))
    }
    todo = [run for run in planned if f"{run}" not in names or f"{run}" in stale]
    of_scenario = {run.scenario: run for run in known}
    for run in todo:
        found = of_scenario.get(run.scenario.name)
        if f"{run}" not in names and found and (keys := task_differences(run, found)):
            stale[run.scenario.name] = keys
    return todo, stale


def show(planned: Sequence[Specification], todo: Sequence[Specification]) -> Iterator[str]:
    """A line for each scenario and strategy with the seeds that are to do."""
    left = {f"{run}" for run in todo}

    def cell(run: Specification) -> tuple[str, str]:
        return run.scenario.name, run.strategy.name

    for (scenario, strategy), runs in groupby(sorted(planned, key=cell), key=cell):
        seeds = [str(run.seed) for run in runs if f"{run}" in left]
        yield f"{scenario}/{strategy}: " + (f"to do {' '.join(seeds)}" if seeds else "done")


def forget(planned: Sequence[Specification], out: Path) -> None:
    """Remove run folders that hold another definition's run."""
    for run in planned:
        members = run.members if isinstance(run, Bound) else ()
        place = out / "members" / run.strategy.name
        for one, folder in ((run, out), *((each, place) for each in members)):
            try:
                RunFolder(folder / one.path).check(one.identity)
            except InputError:
                shutil.rmtree(folder / one.path)


def train(work: Work, results: Results, jobs: int) -> list[Outcome]:
    """Train, and add finished runs to the results even when interrupted."""
    try:
        work.begin()
        with Reporter(work) as reporter:
            return run_many(work.tasks, jobs=jobs, threads=1, reporter=reporter)
    finally:
        results.write()


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """The parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = os.environ.get("CONTINUAL_MM_TEST_DATA")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time (2)")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(data) if data else None,
        help="folder with feature packs (CONTINUAL_MM_TEST_DATA)",
    )
    parser.add_argument(
        "--only", metavar="REGEX", help="what fits the start of scenario/strategy/seed-n"
    )
    parser.add_argument("--part", choices=("full", "extra", "elsewhere", "all"), default="all")
    parser.add_argument("--dry-run", action="store_true", help="say what is to do")
    parser.add_argument("--plan", type=Path, default=HERE / "plan.toml")
    parser.add_argument("--out", type=Path, default=HERE.parents[1] / "evidence-runs")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument(
        "--slim",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="remove checkpoints of exported runs",
    )
    parser.add_argument(
        "--replace", action="store_true", help="train anew what has another definition by now"
    )
    asked = parser.parse_args(given)
    try:
        asked.only = re.compile(asked.only or "")
    except re.error as error:
        parser.exit(2, f"--only {asked.only!r}: is no regular expression, {error}\n")
    return asked


def chosen(asked: argparse.Namespace) -> list[Specification]:
    """The planned runs that the command line selects."""
    plan = Plan(asked.plan)
    for dataset, reason in plan.missing(asked.data).items():
        print(f"{dataset}: left out, {reason}")
    planned = plan.runs(asked.part, asked.data)
    return [run for run in planned if asked.only.match(f"{run}")]


def main(given: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    asked = arguments(given)
    planned = chosen(asked)
    results = Results(asked.results, slim=asked.slim, replace=asked.replace)
    todo, stale = missing_runs(planned, results.runs)
    if asked.dry_run:
        print("\n".join(show(planned, todo)))
    print(f"{len(planned)} runs, {len(planned) - len(todo)} done, {len(todo)} to do")
    for name, keys in stale.items():
        print(f"{name}: was trained with another {', '.join(keys[:3])}")
    if asked.dry_run:
        return 0
    if stale and not asked.replace:
        print("nothing is trained: --replace trains these anew")
        return 2
    if asked.replace:
        forget(todo, asked.out)
    work = Work(todo, asked.out, results)
    failed = [outcome for outcome in train(work, results, asked.jobs) if outcome.error]
    for outcome in failed:
        print(f"{outcome.folder}: {outcome.error}")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit("\n".join(map(str, error.problems)))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from there")
        sys.exit(INTERRUPTED)
