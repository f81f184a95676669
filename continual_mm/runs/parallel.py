"""Many runs: one after another in this process, or several at once; imports no torch itself."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any
from warnings import warn

from continual_mm.plugins.files import offered
from continual_mm.plugins.registry import missing
from continual_mm.runs.finished import is_whole
from continual_mm.runs.folder import RunFolder
from continual_mm.runs.reporter import Halt, Reporter, RunReporter
from continual_mm.runs.specification import Specification
from continual_mm.system.errors import Problem, Problems
from continual_mm.system.files import check_target
from continual_mm.system.processes import Died, Pool, Progress, Worker

WORKER = "continual_mm.runs.worker"
"""The module that trains; it takes seconds to import, so it is imported when a run needs it."""


@dataclass(frozen=True, slots=True)
class Task:
    """One run to do; its dataset is a registered name or a path.

    ``options`` are arguments of :func:`~continual_mm.runs.run.run_specified` that change no number.
    """

    specification: Specification
    out: Path
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the run lies."""
        return self.out / self.specification.path

    def __str__(self) -> str:
        return str(self.folder)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run stands after :func:`run_many`; ``error`` is empty if it is finished.

    ``refused`` is an input that cannot be used, ``diverged`` a number that was not finite, and
    ``halted`` where an observer ended the run early.
    """

    folder: Path
    error: str = ""
    refused: bool = False
    skipped: bool = False
    diverged: bool = False
    halted: Halt | None = None


Call = tuple[str, tuple[Any, ...]]
"""Method of the :class:`~continual_mm.runs.reporter.RunReporter` of a run, and its arguments."""


def run_many(
    tasks: Iterable[Task],
    *,
    jobs: int = 1,
    threads: int | None = None,
    reporter: Reporter | None = None,
    audience: Reporter | None = None,
) -> list[Outcome]:
    """Do runs and say how each stands; one that fails is reported and does not stop the others.

    Runs finished earlier are skipped, and if all are, nothing is loaded and no process is started.
    With several jobs each run is done in one of so many processes, which load a dataset once. They
    are forked, so a script must do this below ``if __name__ == "__main__"``. ``threads`` are CPU
    threads of each run: the same number gives the same bits, whatever the jobs. If left out, torch
    decides where there is one job; else see :func:`share_of_cores`. ``audience`` is the former name
    of ``reporter``.

    Two runs for one folder, a folder with another definition's run and a package that is missing
    are refused before any run; a dataset that cannot be used is refused when it is loaded.
    """
    if audience is not None:
        warn("run_many(audience=...) is now reporter=...", DeprecationWarning, stacklevel=2)
    tasks, reporter = list(tasks), reporter or audience or Reporter()
    _check(tasks)
    outcomes: dict[Path, Outcome] = {}
    waiting = _unfinished(tasks, outcomes, reporter)
    if jobs == 1:
        ended = _in_turn(waiting, threads, reporter)
    else:
        ended = _at_once(waiting, jobs, threads or share_of_cores(jobs), reporter)
    for outcome in ended:
        outcomes[outcome.folder] = outcome
        if outcome.error:
            report = reporter.halts if outcome.halted else reporter.fails
            report(str(outcome.folder), outcome.error)
    return [outcomes[task.folder] for task in tasks]


def _check(tasks: Sequence[Task]) -> None:
    """Refuse, before anything is trained, what would be refused hours later."""
    message = "two of the runs would go into this folder"
    remedy = "name each strategy once; two of one name need two --out"
    folders = Counter(task.folder for task in tasks)
    problems = Problems(
        Problem(str(folder), message, remedy) for folder, count in folders.items() if count > 1
    )
    strategies = {task.specification.strategy.name: task.specification.strategy for task in tasks}
    for strategy in strategies.values():
        problems += missing(strategy)
    for task in tasks:
        with problems.collected():
            check_target(task.folder, folder=True)
            RunFolder(task.folder).check(task.specification.identity)
    problems.check()


def _unfinished(
    tasks: Sequence[Task], outcomes: dict[Path, Outcome], reporter: Reporter
) -> Iterator[Task]:
    """Tasks one by one, those left out that are finished by then; these have an outcome."""
    for task in tasks:
        if RunFolder(task.folder).finished and is_whole(task.folder):
            reporter.skips(str(task))
            outcomes[task.folder] = Outcome(task.folder, skipped=True)
        else:
            yield task


def _in_turn(tasks: Iterator[Task], threads: int | None, reporter: Reporter) -> Iterator[Outcome]:
    trainer = None
    for task in tasks:
        if trainer is None:
            reporter.loads("torch")
            import_module("torch")
            reporter.loads("Avalanche")
            trainer = import_module(WORKER).Trainer(threads, reporter.loads)
        yield trainer.train(task, reporter.run_reporter(str(task)))


def _at_once(
    tasks: Iterator[Task], jobs: int, threads: int, reporter: Reporter
) -> Iterator[Outcome]:
    run_reporters: dict[Path, RunReporter] = {}

    def next_task() -> Task | None:
        task = next(tasks, None)
        if task is not None:
            if not run_reporters:
                reporter.loads(f"torch and the data, in up to {jobs} processes")
            run_reporters[task.folder] = reporter.run_reporter(str(task))
        return task

    def is_sound(outcome: Outcome) -> bool:  # after a failure memory may be in any state
        return not outcome.error or outcome.halted is not None

    # A process may be made by one that was begun before they were offered.
    plugin_files = tuple(map(str, offered().values()))
    worker = Worker(f"{WORKER}:trainer", (threads, plugin_files))
    with Pool[Task](worker, size=jobs, threads=threads, reusable=is_sound) as pool:
        for task, event in pool.run(next_task):
            if isinstance(event, Progress):
                method, arguments = event.value
                getattr(run_reporters[task.folder], method)(*arguments)
            elif isinstance(event, Died):
                RunFolder(task.folder).note_failure(event.reason)
                yield Outcome(task.folder, event.reason)
            else:
                yield event.value


def share_of_cores(jobs: int) -> int:
    """CPU threads of each of some jobs at once: at least 1, at most ``OMP_NUM_THREADS``."""
    usable = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if usable else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores // jobs, int(limit) if limit.isdecimal() else cores))
