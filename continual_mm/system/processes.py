"""Processes that do tasks, several at once; the one that starts them need not import for it."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from importlib import import_module
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

PATIENCE = 10.0
"""Seconds that a process has to end by itself before it is killed."""

_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_FORKS = "forkserver" in multiprocessing.get_all_start_methods()


@dataclass(frozen=True, slots=True)
class Trade:
    """What processes can do.

    Attributes:
        module: Has a function ``serve``, which is given a connection and what follows here. It does
            the tasks that come through the connection, and says what becomes of them, until nobody
            is at the other end any more.
        given: Further arguments of it.
        tools: Modules that it will need. Where processes are forked, each is imported once.
    """

    module: str
    given: tuple[Any, ...] = ()
    tools: tuple[str, ...] = ()


class Then(Enum):
    """What is to be done after a message.

    Attributes:
        WAIT: The process goes on with its task.
        NEXT: It is ready for another.
        REPLACE: The task has ended, and another process does the next.
    """

    WAIT = auto()
    NEXT = auto()
    REPLACE = auto()


class Work(Protocol):
    """Tasks, and what becomes of them."""

    def take(self) -> Any:
        """The next task, as it is sent to a process; None if there is none."""

    def hear(self, task: Any, message: Any) -> Then:
        """A process said something about its task."""

    def lose(self, task: Any, why: str) -> None:
        """A process is no more, and with it its task."""


@dataclass(slots=True, eq=False)
class _Worker:
    """A process, and the task that it does."""

    process: BaseProcess
    connection: Connection
    task: Any


class Crew:
    """Processes that do tasks; a process does many.

    Args:
        work: The tasks.
        trade: Who does them.
        size: Processes at most.
        threads: CPU threads of each.
    """

    def __init__(self, work: Work, trade: Trade, *, size: int, threads: int) -> None:
        self._work = work
        self._trade = trade
        self._size = size
        self._threads = threads
        self._busy: list[_Worker] = []
        self._leaving: list[BaseProcess] = []

    def work(self) -> None:
        """Do every task; whatever happens, no process is left."""
        try:
            while len(self._busy) < self._size and (task := self._work.take()) is not None:
                self._hire(task)
            while self._busy:
                for worker in self._ready():
                    self._hear(worker)
        finally:
            for worker in self._busy:
                worker.process.terminate()
                worker.connection.close()
            _join([*self._leaving, *(worker.process for worker in self._busy)])

    def _hire(self, task: Any) -> None:
        """Have a new process do a task."""
        context = _context()
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, self._trade))
        _start(process, self._trade, self._threads)
        there.close()
        worker = _Worker(process, here, task)
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
            self._let_go(worker)
            self._work.lose(worker.task, _death(worker.process.exitcode))
            self._replace()

    def _take_down(self, worker: _Worker, message: Any) -> None:
        then = self._work.hear(worker.task, message)
        if then is Then.REPLACE:
            self._let_go(worker)
            self._replace()
        elif then is Then.NEXT:
            self._go_on(worker)

    def _go_on(self, worker: _Worker) -> None:
        """Give a process its next task, or let it go."""
        task = self._work.take()
        if task is None:
            self._let_go(worker)
        else:
            worker.task = task
            _give(worker)

    def _replace(self) -> None:
        """Have another process do the next task, if there is one."""
        if (task := self._work.take()) is not None:
            self._hire(task)

    def _let_go(self, worker: _Worker) -> None:
        """Without a connection a process ends."""
        self._busy.remove(worker)
        worker.connection.close()
        self._leaving.append(worker.process)


def _context() -> ForkServerContext | SpawnContext:
    """New processes, which inherit no thread; where they are forked, modules are imported once."""
    if _FORKS:
        return multiprocessing.get_context("forkserver")
    return multiprocessing.get_context("spawn")


def _give(worker: _Worker) -> None:
    # To one that is no more nothing can be given; that it is no more is found out by waiting.
    with suppress(OSError):
        worker.connection.send(worker.task)


def _serve(connection: Connection, trade: Trade) -> None:
    import_module(trade.module).serve(connection, *trade.given)


def _start(process: BaseProcess, trade: Trade, threads: int) -> None:
    """Start a process, which leaves Ctrl-C to this one and has few threads.

    A fork server inherits both here, and whatever is forked from it does from there. Waiting for
    its imports is then outside, so that Ctrl-C need not wait for them.
    """
    with _inherited(threads):
        if _FORKS:
            forkserver.set_forkserver_preload([trade.module, *trade.tools])
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
