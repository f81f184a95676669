"""How far an extraction is: a bar on a terminal, plain lines where there is none."""

from time import monotonic

from rich.progress import TaskID

from continual_mm.count_bar import bars
from continual_mm.extraction.listener import Listener
from continual_mm.terminal import err

EVERY = 30.0
"""Seconds at least between two lines where there is no terminal."""


class ClipBar(Listener):
    """Shows the clips that are done, and tells of those that fail.

    Args:
        every: Seconds between lines.
    """

    def __init__(self, *, every: float = EVERY) -> None:
        self._bars = bars()
        self._bar: TaskID | None = None
        self._every = every
        self._clips = self._done = 0
        self._told = monotonic()

    def __enter__(self) -> "ClipBar":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def prepares(self, workers: int) -> None:
        """Say that it takes a while, and why."""
        some = "1 process" if workers == 1 else f"{workers} processes"
        where = f" in {some}" if workers else ""
        err.print(f"loading towers{where} ...", style="dim")

    def begins(self, clips: int, left: int) -> None:
        """Say how many are there already."""
        if left < clips:
            err.print(f"{clips - left:,} of {clips:,} clips are there already")
        self._clips, self._done = clips, clips - left
        self._told = monotonic()
        self._bar = self._bars.add_task("", total=clips, completed=clips - left, unit="clips")

    def finished(self, clip: str) -> None:
        """One more."""
        self._advance()

    def failed(self, clip: str, problem: str) -> None:
        """Tell why, and go on."""
        err.print(f"{clip}: {problem}")
        self._advance()

    def ends(self, finished: int, failed: int) -> None:
        """Say so where there was no bar to see it on."""
        self._tell()

    def _advance(self) -> None:
        self._done += 1
        if self._bar is not None:
            self._bars.advance(self._bar)
        if monotonic() - self._told >= self._every and self._done < self._clips:
            self._tell()

    def _tell(self) -> None:
        self._told = monotonic()
        if not err.is_terminal:
            err.print(f"{self._done:,} of {self._clips:,} clips are done")
