"""Many runs: one after another in this process, or several at once in processes of their own.

Nothing here imports torch: it would be imported once more beside the processes that need it, and
for nothing where all runs are finished.
"""

import os
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from continual_mm.plugins.registry import missing
from continual_mm.runs import folder as failure
from continual_mm.runs.folder import RunFolder
from continual_mm.runs.listener import Audience, Halt, Listener
from continual_mm.runs.specification import Specification
from continual_mm.runs.status import is_finished
from continual_mm.system.errors import InputError, Problem
from continual_mm.system.processes import Died, Pool, Progress, Worker


@dataclass(frozen=True, slots=True)
class Told:
    """Something that a listener of the run in progress would hear.

    Attributes:
        event: The listener's method.
        given: Its arguments by position.
        named: Its arguments by name.
    """

    event: str
    given: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Task:
    """One run to do.

    Attributes:
        specification: What is trained; its dataset is a registered name or a path.
        out: The folder of all runs.
        options: Further keyword arguments of :func:`continual_mm.runs.run.run_specified`, such as
            ``{"device": "cpu"}``; they must change no number.
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
class Ended:
    """How an attempt at a run ended.

    Attributes:
        error: One line; empty if the run is finished.
        refused: Whether the error is an input that cannot be used, such as a device.
        diverged: Whether it is a number that was not finite: training again would come to it again.
        halted: Where and why an observer wanted no more of the run; not a failure.
    """

    error: str = ""
    refused: bool = False
    diverged: bool = False
    halted: Halt | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run stands after :func:`~continual_mm.runs.parallel.run_many`.

    Attributes:
        folder: Where it lies.
        error: Why it is not finished, in one line; empty if it is.
        refused: Whether the error is an input that cannot be used, such as a device.
        skipped: Whether it was finished earlier.
        diverged: Whether the error is a number that was not finite.
        halted: Where and why an observer wanted no more of the run; not a failure.
    """

    folder: Path
    error: str = ""
    refused: bool = False
    skipped: bool = False
    diverged: bool = False
    halted: Halt | None = None


class Ledger:
    """Gives out runs in order, takes down how they end, and tells an audience.

    Args:
        tasks: The runs.
        audience: Who hears of them.

    Raises:
        InputError: If a dataset cannot be used, if two runs would go into one folder, or if a
            folder holds another definition's run; with a problem for each.
    """

    def __init__(self, tasks: Sequence[Task], audience: Audience) -> None:
        _check(tasks)
        self.audience = audience
        self._order = [task.folder for task in tasks]
        self._waiting = deque(tasks)
        self._outcomes: dict[Path, Outcome] = {}

    def take(self) -> Task | None:
        """The next run that is not finished; None if there is none."""
        while self._waiting:
            task = self._waiting.popleft()
            if not is_finished(task.folder):
                failure.forget(task.folder)
                return task
            self.audience.skips(str(task))
            self._outcomes[task.folder] = Outcome(task.folder, skipped=True)
        return None

    def listener(self, task: Task) -> Listener:
        """Who hears of a run just taken."""
        return self.audience.listener(str(task))

    def ended(self, task: Task, end: Ended) -> None:
        """Take down how a run ended; a failure is also noted in its folder."""
        self._outcomes[task.folder] = Outcome(
            task.folder, end.error, end.refused, diverged=end.diverged, halted=end.halted
        )
        if end.error:
            failure.note(task.folder, end.error)
            tell = self.audience.halts if end.halted else self.audience.fails
            tell(str(task), end.error)

    @property
    def outcomes(self) -> list[Outcome]:
        """How the runs ended, in the order in which they were given."""
        return [self._outcomes[folder] for folder in self._order]


def _check(tasks: Sequence[Task]) -> None:
    """Refuse, before anything is trained, what would be refused hours later."""
    problems = list(_repeated(task.folder for task in tasks))
    for strategy in {
        task.specification.strategy.name: task.specification.strategy for task in tasks
    }.values():
        problems += missing(strategy)
    for task in tasks:
        try:
            RunFolder(task.folder).check(task.specification.identity)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)


def _repeated(folders: Iterable[Path]) -> Iterable[Problem]:
    seen: set[Path] = set()
    for folder in folders:
        if folder in seen:
            remedy = "name each strategy once; two of one name need two --out"
            yield Problem(str(folder), "two of the runs would go into this folder", remedy)
        seen.add(folder)


WORKER = "continual_mm.runs.worker"
"""The module that does runs; it takes seconds to import."""


def run_many(
    tasks: Iterable[Task],
    *,
    jobs: int = 1,
    threads: int | None = None,
    audience: Audience | None = None,
) -> list[Outcome]:
    """Do runs; one that fails is reported and does not stop the others.

    A failure is a number that is not finite, lack of memory or disk, a process that was killed.
    Runs finished earlier are skipped, and if all are, nothing is loaded and no process is started.

    With several jobs each run is done in one of so many processes, each of which does many runs
    and loads a dataset once. The modules are imported once, in a process that the others are
    forked from. A script must do this below ``if __name__ == "__main__"``, as always with
    processes.

    Args:
        tasks: The runs, in order.
        jobs: Runs at the same time; 1 does them in this process.
        threads: CPU threads of each run. The same number gives the same bits, whatever the jobs.
            If left out, torch decides where there is one job; else each has its share of the
            cores, at most ``OMP_NUM_THREADS``.
        audience: Who hears of the progress, in this process.

    Returns:
        How each run stands, in the order of the tasks.

    Raises:
        InputError: Before any run, if a dataset cannot be used, two runs would go into one
            folder, or a folder holds another definition's run. Later, if the values of a dataset
            turn out to be unsound when they are read.
    """
    ledger = Ledger(list(tasks), audience or Audience())
    if jobs == 1:
        _in_turn(ledger, threads)
    else:
        each = threads or share_of_cores(jobs)
        _at_once(ledger, jobs, each)
    return ledger.outcomes


def _at_once(ledger: Ledger, jobs: int, threads: int) -> None:
    listeners: dict[Path, Listener] = {}

    def next_task() -> Task | None:
        task = ledger.take()
        if task is not None:
            if not listeners:
                ledger.audience.prepares(jobs)
            listeners[task.folder] = ledger.listener(task)
        return task

    worker = Worker(f"{WORKER}:trainer", (threads,))
    with Pool[Task](worker, size=jobs, threads=threads, reusable=_is_sound) as pool:
        for task, event in pool.run(next_task):
            if isinstance(event, Progress):
                told: Told = event.value
                getattr(listeners[task.folder], told.event)(*told.given, **told.named)
            else:
                ledger.ended(task, Ended(event.reason) if isinstance(event, Died) else event.value)


def _is_sound(ended: Ended) -> bool:
    """Whether a process may do further runs: after a failure its memory may be in any state."""
    return not ended.error or ended.halted is not None


def share_of_cores(jobs: int) -> int:
    """CPU threads of each of some jobs at once: at least 1, at most ``OMP_NUM_THREADS``."""
    usable = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if usable else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores // jobs, int(limit) if limit.isdecimal() else cores))


def _in_turn(ledger: Ledger, threads: int | None) -> None:
    task = ledger.take()
    if task is None:
        return
    ledger.audience.prepares(0)
    worker = import_module(WORKER)
    trainer = worker.Trainer()
    with worker.torch_threads(threads):
        while task is not None:
            ledger.ended(task, trainer.train(task, ledger.listener(task)))
            task = ledger.take()
