"""A pool of processes that do tasks; a process that dies fails its own task and no other."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pkgutil import resolve_name
from typing import Any, Generic, Self, TypeVar

from continual_mm.system.errors import InputError

_GRACE = 10.0  # seconds that a process has to end by itself before it is killed
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_FORKSERVER = multiprocessing.get_context("forkserver")

_Task = TypeVar("_Task")


@dataclass(frozen=True, slots=True)
class Worker:
    """What a pool's processes run."""

    # `module:function`, imported in the processes only. The function takes `args` and returns
    # `work(task, report) -> result`, which does one task after another; `report(value)` sends a
    # value to the pool while a task runs.
    factory: str
    args: tuple[Any, ...] = ()
    # Modules that are imported once, in the server that processes are forked from.
    preload: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """A value that a worker reported; its task goes on."""

    value: Any


@dataclass(frozen=True, slots=True)
class Result:
    """What a worker returned for its task."""

    value: Any


@dataclass(frozen=True, slots=True)
class Died:
    """The process of a task ended without a result, for a reason in one line."""

    reason: str


class Pool(Generic[_Task]):
    """At most ``size`` processes that do tasks; as a context manager it leaves none behind.

    Every process has a pipe of its own and shares no lock, so that one that is killed at any moment
    blocks no other. Processes end when the one that started them ends, however it does.
    ``reusable`` says of a result whether its process does further tasks.
    """

    def __init__(
        self,
        worker: Worker,
        *,
        size: int,
        threads: int,
        reusable: Callable[[Any], bool] = lambda _: True,
    ) -> None:
        self._worker = worker
        self._size = size
        self._threads = threads
        self._reusable = reusable
        self._processes: dict[Connection, BaseProcess] = {}
        self._busy: dict[Connection, _Task] = {}
        self._ended: list[BaseProcess] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in [*self._processes]:
            if connection in self._busy:
                self._processes[connection].terminate()
            self._release(connection)
        for process in self._ended:
            process.join(_GRACE)
            if process.is_alive():
                process.kill()
                process.join()

    def run(
        self, next_task: Callable[[], _Task | None]
    ) -> Iterator[tuple[_Task, Progress | Result | Died]]:
        """Do tasks that ``next_task`` gives, None if there is none; yields all that happens."""
        while True:
            self._assign(next_task)
            if not self._busy:
                return
            ready = wait([*self._busy])
            for connection in [each for each in self._busy if each in ready]:
                yield self._busy[connection], self._event(connection)

    def _assign(self, next_task: Callable[[], _Task | None]) -> None:
        """Give tasks to free processes, and release those for which there is none."""
        free = [each for each in self._processes if each not in self._busy]
        while len(self._busy) < self._size and (task := next_task()) is not None:
            connection = free.pop() if free else self._start()
            self._busy[connection] = task
            with suppress(OSError):  # of a dead process, which shows when it is waited for
                connection.send(task)
        for connection in free:
            self._release(connection)

    def _event(self, connection: Connection) -> Progress | Result | Died:
        try:
            event: Progress | Result | InputError = connection.recv()
        except (EOFError, OSError):
            process = self._processes[connection]
            process.join(_GRACE)
            self._release(connection)
            return Died(_death(process.exitcode))
        if isinstance(event, InputError):
            raise event
        if isinstance(event, Result):
            del self._busy[connection]
            if not self._reusable(event.value):
                self._release(connection)
        return event

    def _start(self) -> Connection:
        here, there = _FORKSERVER.Pipe()
        process = _FORKSERVER.Process(target=_serve, args=(there, self._worker))
        module = self._worker.factory.partition(":")[0]
        _start_server([module, *self._worker.preload], self._threads)
        try:
            process.start()  # waits for the server's imports
        except KeyboardInterrupt:
            # The server would end after its imports only; Python has no public name for it.
            server: int | None = getattr(forkserver._forkserver, "_forkserver_pid", None)
            if server is not None:
                os.kill(server, signal.SIGTERM)
            raise
        there.close()
        self._processes[here] = process
        return here

    def _release(self, connection: Connection) -> None:
        """A process ends by itself when its connection is closed."""
        self._busy.pop(connection, None)
        self._ended.append(self._processes.pop(connection))
        connection.close()


def _serve(connection: Connection, worker: Worker) -> None:
    """Do the tasks that come through a connection until it is closed."""
    # Ctrl-C is for the process with the pool. As an exception SIGTERM lets files be removed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))

    def send(message: Progress | Result | InputError) -> None:
        try:
            connection.send(message)
        except OSError:  # the process with the pool is gone
            sys.exit(1)

    try:
        work = resolve_name(worker.factory)(*worker.args)
        while True:
            try:
                task = connection.recv()
            except (EOFError, OSError):
                return
            send(Result(work(task, lambda value: send(Progress(value)))))
    except InputError as error:
        send(error)


def _start_server(preload: list[str], threads: int) -> None:
    """Start the server that processes are forked from, with few threads and SIGINT blocked."""
    resource_tracker.ensure_running()  # it would unblock SIGINT if it were started below
    before = {name: os.environ[name] for name in _THREADS if name in os.environ}
    os.environ.update(dict.fromkeys(_THREADS, str(threads)))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.set_forkserver_preload(preload)
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name in _THREADS:
            del os.environ[name]
        os.environ.update(before)


def _death(code: int | None) -> str:
    """Why a process is no more, from its exit code."""
    if code is None or code >= 0:
        return f"its process ended with exit code {code}"
    name = signal.Signals(-code).name
    hint = ", perhaps for lack of memory" if -code == signal.SIGKILL else ""
    return f"its process was killed by {name}{hint}"
