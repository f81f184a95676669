"""Processes that extract clips, several at once; one that dies takes no more than its clip."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess

from continual_mm.extraction.clip_files import Problem
from continual_mm.extraction.worker import Answer, Job, Task, serve

PATIENCE = 10.0
"""Seconds that a process has to end by itself before it is killed."""

_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_FORKS = "forkserver" in multiprocessing.get_all_start_methods()


@dataclass(slots=True)
class _Worker:
    """A process, and the clip that it extracts."""

    process: BaseProcess
    connection: Connection
    task: Task


class Crew:
    """Processes that do tasks.

    Args:
        job: What the tasks have in common.
        tasks: What is to be done.
        workers: Processes at most.
        ended: Is told what became of each task.
    """

    def __init__(
        self,
        job: Job,
        tasks: Iterator[Task],
        workers: int,
        ended: Callable[[Task, Answer], None],
    ) -> None:
        self._job = job
        self._tasks = tasks
        self._workers = workers
        self._ended = ended
        self._busy: list[_Worker] = []
        self._leaving: list[BaseProcess] = []

    def work(self) -> None:
        """Do every task; whatever happens, no process is left."""
        try:
            while len(self._busy) < self._workers and self._hire():
                pass
            while self._busy:
                wait([x for w in self._busy for x in (w.connection, w.process.sentinel)])
                for worker in list(self._busy):
                    self._hear(worker)
        finally:
            for worker in self._busy:
                worker.process.terminate()
                worker.connection.close()
            for process in [*self._leaving, *(worker.process for worker in self._busy)]:
                process.join(PATIENCE)
                if process.is_alive():
                    process.kill()
                    process.join()

    def _hire(self) -> bool:
        """Have a new process do a task, if there is one."""
        task = next(self._tasks, None)
        if task is None:
            return False
        context = _context()
        here, there = context.Pipe()
        process = context.Process(target=serve, args=(there, self._job))
        with _inherited():
            if _FORKS:
                forkserver.set_forkserver_preload([serve.__module__])
                forkserver.ensure_running()
            process.start()
        there.close()
        worker = _Worker(process, here, task)
        self._busy.append(worker)
        self._give(worker)
        return True

    def _hear(self, worker: _Worker) -> None:
        # Asked first: what a process said before it ended is then still heard.
        alive = worker.process.is_alive()
        with suppress(EOFError, OSError):
            if worker.connection.poll():
                answer: Answer = worker.connection.recv()
                self._ended(worker.task, answer)
                self._go_on(worker)
                return
        if not alive:
            self._let_go(worker)
            problem = Problem("process", _death(worker.process.exitcode))
            self._ended(worker.task, Answer(problem))
            self._hire()

    def _go_on(self, worker: _Worker) -> None:
        task = next(self._tasks, None)
        if task is None:
            self._let_go(worker)
        else:
            worker.task = task
            self._give(worker)

    def _give(self, worker: _Worker) -> None:
        # To one that is no more nothing can be given; that it is no more is found out by waiting.
        with suppress(OSError):
            worker.connection.send(worker.task)

    def _let_go(self, worker: _Worker) -> None:
        """Without a connection a process ends."""
        self._busy.remove(worker)
        worker.connection.close()
        self._leaving.append(worker.process)


def _context() -> ForkServerContext | SpawnContext:
    """New processes, which inherit no thread; where it can be, torch is imported once for all."""
    if _FORKS:
        return multiprocessing.get_context("forkserver")
    return multiprocessing.get_context("spawn")


@contextmanager
def _inherited() -> Iterator[None]:
    """What a process that is started meanwhile keeps: one thread, and no ear for Ctrl-C."""
    # Started later, the tracker would unblock Ctrl-C by itself.
    resource_tracker.ensure_running()
    before = {name: os.environ.get(name) for name in _LIMITS}
    os.environ.update(dict.fromkeys(_LIMITS, "1"))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _death(code: int | None) -> str:
    """Why a process is no more, from its exit code.

    >>> _death(-11)
    'its process was killed by SIGSEGV'
    >>> _death(-9)
    'its process was killed by SIGKILL, perhaps for lack of memory'
    """
    if code is None or code >= 0:
        return f"its process ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"its process was killed by {name}" + (
        ", perhaps for lack of memory" if name == "SIGKILL" else ""
    )
