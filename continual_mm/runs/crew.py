"""Processes that do runs, several at once; the one that starts them imports no torch."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess

from continual_mm.complaint import RefusedError
from continual_mm.runs.listener import Listener
from continual_mm.runs.messages import Refused, Told
from continual_mm.runs.tasks import Ended, Ledger, Task

WORKER = "continual_mm.runs.worker"
"""The module that does runs; it takes seconds to import."""

PATIENCE = 10.0
"""Seconds that a process has to end by itself before it is killed."""

_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_FORKS = "forkserver" in multiprocessing.get_all_start_methods()


@dataclass(slots=True)
class _Worker:
    """A process that does runs, and the run that it does."""

    process: BaseProcess
    connection: Connection
    task: Task
    listener: Listener


class Crew:
    """Processes that do the runs of a ledger; a process does many.

    Args:
        ledger: The runs.
        jobs: Processes at most.
        threads: CPU threads of each.
    """

    def __init__(self, ledger: Ledger, jobs: int, threads: int) -> None:
        self._ledger = ledger
        self._jobs = jobs
        self._threads = threads
        self._busy: list[_Worker] = []
        self._leaving: list[BaseProcess] = []

    def work(self) -> None:
        """Do every run; whatever happens, no process is left."""
        try:
            while len(self._busy) < self._jobs and (task := self._ledger.take()) is not None:
                if not self._busy:
                    self._ledger.audience.prepares(self._jobs)
                self._hire(task)
            while self._busy:
                for worker in self._ready():
                    self._hear(worker)
        finally:
            for worker in self._busy:
                worker.process.terminate()
                worker.connection.close()
            _join([*self._leaving, *(worker.process for worker in self._busy)])

    def _hire(self, task: Task) -> None:
        """Have a new process do a run."""
        listener = self._ledger.listener(task)
        context = _context()
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, self._threads))
        _start(process, self._threads)
        there.close()
        worker = _Worker(process, here, task, listener)
        self._busy.append(worker)
        _give(worker)

    def _ready(self) -> list[_Worker]:
        """Those that said something or are no more; waits for the first."""
        ready = wait([x for w in self._busy for x in (w.connection, w.process.sentinel)])
        return [w for w in self._busy if w.connection in ready or w.process.sentinel in ready]

    def _hear(self, worker: _Worker) -> None:
        # Asked first: what a process said before it ended is then still heard.
        alive = worker.process.is_alive()
        try:
            while worker in self._busy and worker.connection.poll():
                self._take_down(worker, worker.connection.recv())
        except (EOFError, OSError):
            alive = False
        if not alive and worker in self._busy:
            worker.process.join(PATIENCE)
            self._dismiss(worker, Ended(_death(worker.process.exitcode)))

    def _take_down(self, worker: _Worker, message: Told | Refused | Ended) -> None:
        if isinstance(message, Told):
            getattr(worker.listener, message.event)(*message.given, **message.named)
        elif isinstance(message, Refused):
            raise RefusedError(message.complaints)
        elif message.error and not message.halted:
            # Its memory or its device may be in any state, so the next run has another process.
            self._dismiss(worker, message)
        else:
            self._ledger.ended(worker.task, message)
            self._go_on(worker)

    def _go_on(self, worker: _Worker) -> None:
        """Give a process its next run, or let it go."""
        task = self._ledger.take()
        if task is None:
            self._let_go(worker)
        else:
            worker.task, worker.listener = task, self._ledger.listener(task)
            _give(worker)

    def _dismiss(self, worker: _Worker, end: Ended) -> None:
        """Take down a failure; another process does the next run."""
        self._let_go(worker)
        self._ledger.ended(worker.task, end)
        if (task := self._ledger.take()) is not None:
            self._hire(task)

    def _let_go(self, worker: _Worker) -> None:
        """Without a connection a process ends."""
        self._busy.remove(worker)
        worker.connection.close()
        self._leaving.append(worker.process)


def _context() -> ForkServerContext | SpawnContext:
    if _FORKS:
        return multiprocessing.get_context("forkserver")
    return multiprocessing.get_context("spawn")


def _give(worker: _Worker) -> None:
    # To one that is no more nothing can be given; that it is no more is found out by waiting.
    with suppress(OSError):
        worker.connection.send(worker.task)


def _serve(connection: Connection, threads: int) -> None:
    import_module(WORKER).serve(connection, threads)


def _start(process: BaseProcess, threads: int) -> None:
    """Start a process, which leaves Ctrl-C to this one and has few threads.

    A fork server inherits both here, and whatever is forked from it does from there. Waiting for
    its imports is then outside, so that Ctrl-C need not wait for them.
    """
    with _inherited(threads):
        if _FORKS:
            forkserver.set_forkserver_preload([WORKER])
            forkserver.ensure_running()
        else:
            process.start()
    if _FORKS:
        try:
            process.start()
        except KeyboardInterrupt:
            _end_server()
            raise


def _end_server() -> None:
    """End a server whose imports nobody waits for any more; it would go on with them for long.

    Python has no public name for it. Without one the server ends by itself after its imports.
    """
    server: int | None = getattr(forkserver._forkserver, "_forkserver_pid", None)
    if server is not None:
        os.kill(server, signal.SIGTERM)


@contextmanager
def _inherited(threads: int) -> Iterator[None]:
    """What a process that is started meanwhile keeps."""
    # Started later, the tracker would unblock Ctrl-C by itself.
    resource_tracker.ensure_running()
    before = {name: os.environ.get(name) for name in _LIMITS}
    os.environ.update(dict.fromkeys(_LIMITS, str(threads)))
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


def _join(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()


def _death(code: int | None) -> str:
    """Why a process is no more, from its exit code.

    >>> _death(-9)
    'its process was killed by SIGKILL, perhaps for lack of memory'
    >>> _death(1)
    'its process ended with exit code 1'
    """
    if code is None or code >= 0:
        return f"its process ended with exit code {code}"
    name = signal.Signals(-code).name
    hint = ", perhaps for lack of memory" if -code == signal.SIGKILL else ""
    return f"its process was killed by {name}{hint}"
