"""Many runs: one after another in this process, or several at once in processes of their own.

Nothing here imports torch: it would be imported once more beside the processes that need it, and
for nothing where all runs are finished.
"""

import os
from collections.abc import Iterable
from importlib import import_module

from continual_mm.runs.crew import WORKER, Crew
from continual_mm.runs.listener import Audience
from continual_mm.runs.tasks import Ledger, Outcome, Task

__all__ = ["Outcome", "Task", "run_many"]


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
        Crew(ledger, jobs, threads or share_of_cores(jobs)).work()
    return ledger.outcomes


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
