"""How much memory this process has held at most, from a moment on."""

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
