"""How much memory there is, and how much this process has held at most, from a moment on."""

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

_PROCESS = Path("/proc/self")
_NEW_MAXIMUM = "5"  # what Linux takes in `clear_refs` to begin VmHWM anew, see proc(5)


class PeakMemory:
    """Most bytes that this process held in memory at once since this object was made.

    What it had then counts as well: libraries, loaded data.
    """

    def __init__(self) -> None:
        self._before = 0 if _begin_anew() else _most_since_start()

    @property
    def bytes(self) -> int | None:
        """None where the system gives one maximum for the whole process and it was reached before.

        Linux gives a new one where that is permitted; other systems do not.
        """
        most = _most_since_start()
        return most if most > self._before else None


def _begin_anew() -> bool:
    with suppress(OSError):
        (_PROCESS / "clear_refs").write_text(_NEW_MAXIMUM)
        return True
    return False


def _most_since_start() -> int:
    with suppress(OSError):
        for line in (_PROCESS / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    # Of a program that another one started it may be that one's, but there is no other number.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


_GROUP_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)
"""Where a container's limit stands, in the two forms of control groups."""


def machine_memory() -> int:
    """Bytes of memory that this machine, or the container that this runs in, has.

    More than any machine has, where that cannot be known.
    """
    found = [sys.maxsize]
    if hasattr(os, "sysconf"):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in map(Path, _GROUP_LIMITS):
        try:
            text = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text.isdecimal():
            found.append(int(text))
    return min(found)


def gigabytes(count: float) -> str:
    """A number of bytes as it is told to people.

    >>> gigabytes(1_500_000_000), gigabytes(20_000_000), gigabytes(26e9)
    ('1.5 GB', '0.02 GB', '26 GB')
    """
    return f"{count / 1e9:.2g} GB" if count < 1e10 else f"{count / 1e9:,.0f} GB"
