"""How far an extraction is: a bar on a terminal, plain lines where there is none."""

from rich.progress import TaskID

from continual_mm.count_bar import bars
from continual_mm.extraction.listener import Listener
from continual_mm.terminal import err


class ClipBar(Listener):
    """Shows the clips that are done, and tells of those that fail."""

    def __init__(self) -> None:
        self._bars = bars()
        self._bar: TaskID | None = None

    def __enter__(self) -> "ClipBar":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def prepares(self, workers: int) -> None:
        """Say that it takes a while, and why."""
        where = f" in {workers} processes" if workers else ""
        err.print(f"loading towers{where} ...", style="dim")

    def begins(self, clips: int, left: int) -> None:
        """Say how many are there already."""
        if left < clips:
            err.print(f"{clips - left:,} of {clips:,} clips are there already")
        self._bar = self._bars.add_task("", total=clips, completed=clips - left, unit="clips")

    def finished(self, clip: str) -> None:
        """One more."""
        self._advance()

    def failed(self, clip: str, problem: str) -> None:
        """Tell why, and go on."""
        err.print(f"{clip}: {problem}")
        self._advance()

    def _advance(self) -> None:
        if self._bar is not None:
            self._bars.advance(self._bar)
