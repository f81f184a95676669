"""One trial: commands on hostile input, each in a process of its own with limits, and its faults.

A fault is one of :data:`FAULTS`. Commands are run in forks of a process that has imported what
they need, so that a trial takes hundredths of a second and not the seconds of importing torch.
"""

import os
import re
import resource
import signal
import stat
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from continual_mm.cli.app import main
from continual_mm.system.reading import UNEXPECTED

FAULTS = ("tracebacks", "hangs", "memory", "output", "code run", "lost")
"""What must not happen: an error that nobody thought of, a command that does not end, more memory
than :data:`MEMORY`, more than :data:`OUTPUT` bytes printed, code of an input that ran, a file of
the user's, or a finished part of a run, that is gone or changed."""

SECONDS = 30.0  # that a command may take
MEMORY = 1 << 30  # bytes that a command may take beyond what it imports
OUTPUT = 64 << 10  # bytes that a command may print
EXIT_CODES = (0, 1, 2, 130)  # that commands end with, as `continual_mm.cli.app.main` says
_CRASHED = 70  # exit code of an exception that left `main`
_CRASH = re.compile(rf"Traceback \(most recent call|\b{UNEXPECTED} [A-Z]\w+: ")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended; ``code`` is negative for the signal that ended it, as subprocess's."""

    arguments: tuple[str, ...]
    code: int
    text: str  # what it printed, on standard output and on standard error
    peak: int  # bytes of memory beyond those of the process that it was forked from
    faults: tuple[str, ...]


@dataclass(slots=True)
class Place:
    """Where one trial takes place: an empty folder of its own, and its own random numbers."""

    folder: Path
    rng: Random
    guarded: bool = True  # whether no file that is there before the first command may change
    done: list[Ended] = field(default_factory=list)
    _before: dict[Path, tuple[int, int]] | None = None

    @property
    def canary(self) -> Path:
        """What hostile code in an input makes if it runs; it must not be there afterwards."""
        return self.folder / "code-was-run"

    def command(
        self,
        *arguments: str,
        seconds: float = SECONDS,
        kill_after: float | None = None,
        limits: Mapping[int, int] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run ``continual-mm`` with arguments in the folder, and note its faults.

        ``kill_after`` so many seconds it is killed, as by a power cut, which is no hang then;
        ``limits`` are further ones of ``resource.setrlimit``, such as RLIMIT_FSIZE.
        """
        if self._before is None:
            self._before = _files(self.folder)
        printed = self.folder.with_name(f"{self.folder.name}.{len(self.done)}.txt")
        child = os.fork()
        if child == 0:
            _in_child(arguments, self.folder, printed, limits or {}, environment or {})
        status, peak, ended = _awaited(child, min(seconds, kill_after or seconds))
        text = printed.read_text(encoding="utf-8", errors="backslashreplace")
        faults = []
        if not ended and kill_after is None:
            faults.append("hangs")
        elif ended and (status not in EXIT_CODES or _CRASH.search(text)):
            faults.append("tracebacks")
        if peak > MEMORY:
            faults.append("memory")
        if len(text) > OUTPUT:
            faults.append("output")
        found = Ended(arguments, status, text, peak, tuple(faults))
        self.done.append(found)
        return found

    @property
    def lost(self) -> bool:
        """Whether a file of the user's is gone or changed."""
        if not self.guarded or self._before is None:
            return False
        now = _files(self.folder)
        return any(now.get(path) != state for path, state in self._before.items())


def _files(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of change of every file at or below a folder, links not followed."""
    found = {}
    for path in folder.rglob("*"):
        state = path.lstat()
        if not stat.S_ISDIR(state.st_mode):
            found[path] = (state.st_size, state.st_mtime_ns)
    return found


Trial = Callable[[Place], Iterable[str] | None]
"""A trial prepares files in its place, runs commands, and gives faults besides those of them."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a trial; ``story`` says what was done where there is a fault."""

    kind: str
    number: int
    accepted: bool
    faults: tuple[str, ...]
    story: str = ""


def judged(kind: str, trial: Trial, number: int, seed: int, root: Path) -> Verdict:
    """Carry out one trial of a kind; the same number and seed make the same trial."""
    folder = root / f"{kind}-{number}".replace(" ", "-")
    folder.mkdir(parents=True)
    place = Place(folder, Random(f"{seed} {kind} {number}"))
    try:
        faults = [*(trial(place) or ())]
    except Exception as error:
        raise RuntimeError(f"trial {number} of {kind} cannot be made: {error}") from error
    faults += [fault for ended in place.done for fault in ended.faults]
    if place.canary.exists():
        faults.append("code run")
    if place.lost:
        faults.append("lost")
    accepted = all(ended.code == 0 for ended in place.done)
    story = "\n".join(_told(ended) for ended in place.done) if faults else ""
    return Verdict(kind, number, accepted, tuple(dict.fromkeys(faults)), story)


def _told(ended: Ended) -> str:
    lines = ended.text.strip().splitlines()
    return f"$ continual-mm {' '.join(map(repr, ended.arguments))}\n" + "\n".join(
        [f"  exit code {ended.code}", *(f"  {line[:300]}" for line in lines[-12:])]
    )


def _in_child(
    arguments: tuple[str, ...],
    folder: Path,
    printed: Path,
    limits: Mapping[int, int],
    environment: Mapping[str, str],
) -> None:
    """Be the command; never returns."""
    code = _CRASHED
    try:
        os.chdir(folder)
        os.environ.update(environment)
        target = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for stream, handle in enumerate((nothing, target, target)):
            os.dup2(handle, stream)
        for limit, value in {resource.RLIMIT_CORE: 0, **limits}.items():
            resource.setrlimit(limit, (value, value))
        most = _virtual_memory() + 2 * MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        main(arguments)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else _CRASHED
    except BaseException:  # noqa: BLE001 - whatever it is, it is what the trial looks for
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _awaited(child: int, seconds: float) -> tuple[int, int, bool]:
    """Exit status and peak of memory of a child, and whether it ended by itself in time."""
    waited, before, ended = 0.0, time.monotonic(), True
    pid, status, used = os.wait4(child, os.WNOHANG)
    while pid == 0:
        now = time.monotonic()
        # A longer pause is one of this process, such as on a machine that was suspended.
        waited, before = waited + min(now - before, 0.1), now
        if waited > seconds:
            ended = False
            os.kill(child, signal.SIGKILL)
            pid, status, used = os.wait4(child, 0)
            break
        time.sleep(0.002)
        pid, status, used = os.wait4(child, os.WNOHANG)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak = max(0, used.ru_maxrss - held) * (1 if sys.platform == "darwin" else 1024)
    return os.waitstatus_to_exitcode(status), peak, ended


def _virtual_memory() -> int:
    """Bytes of address space of this process."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    return int(pages) * resource.getpagesize()
