"""Many runs: one after another in this process, or several at once in processes of their own.

Nothing here imports torch: it would be imported once more beside the processes that need it, and
for nothing where all runs are finished.
"""

import os
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from continual_mm.complaint import RefusedError
from continual_mm.runs.crew import Crew, Then, Trade
from continual_mm.runs.listener import Audience, Listener
from continual_mm.runs.messages import Refused, Told
from continual_mm.runs.tasks import Ended, Ledger, Outcome, Task

__all__ = ["Outcome", "Task", "run_many"]

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
        RefusedError: Before any run, if a dataset cannot be used, two runs would go into one
            folder, or a folder holds another definition's run. Later, if the values of a dataset
            turn out to be unsound when they are read.
    """
    ledger = Ledger(list(tasks), audience or Audience())
    if jobs == 1:
        _in_turn(ledger, threads)
    else:
        each = threads or share_of_cores(jobs)
        Crew(_Runs(ledger, jobs), Trade(WORKER, (each,)), size=jobs, threads=each).work()
    return ledger.outcomes


class _Runs:
    """The runs of a ledger as the work of a crew.

    Args:
        ledger: The runs.
        jobs: Processes that will do them.
    """

    def __init__(self, ledger: Ledger, jobs: int) -> None:
        self._ledger = ledger
        self._jobs = jobs
        self._listeners: dict[Path, Listener] = {}

    def take(self) -> Task | None:
        """The next run, with somebody to hear of it."""
        task = self._ledger.take()
        if task is None:
            return None
        if not self._listeners:
            self._ledger.audience.prepares(self._jobs)
        self._listeners[task.folder] = self._ledger.listener(task)
        return task

    def hear(self, task: Task, message: Told | Refused | Ended) -> Then:
        """Pass on what is told of a run, and take down its end."""
        if isinstance(message, Told):
            listener = self._listeners[task.folder]
            getattr(listener, message.event)(*message.given, **message.named)
            return Then.WAIT
        if isinstance(message, Refused):
            raise RefusedError(message.complaints)
        self._ledger.ended(task, message)
        # Its memory or its device may be in any state, so the next run has another process.
        return Then.REPLACE if message.error and not message.halted else Then.NEXT

    def lose(self, task: Task, why: str) -> None:
        """Take down a failure."""
        self._ledger.ended(task, Ended(why))


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
