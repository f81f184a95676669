"""How far a run is: a bar on a terminal, a plain line per stage where there is none."""

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from continual_mm.runs.progress import Listener
from continual_mm.terminal import err


class RunProgress(Listener):
    """One progress bar over many runs.

    Args:
        runs: How many runs there will be.
    """

    def __init__(self, runs: int) -> None:
        self._runs = runs
        self._run = 0
        self._name = ""
        self._left = 0
        self._task: TaskID | None = None
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeRemainingColumn(),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        )

    def __enter__(self) -> "RunProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begins(self, run: str, stages: int, steps: int) -> None:
        """Name the run; say so if nothing is left to do."""
        self._run += 1
        self._name, self._left = f"[{self._run}/{self._runs}] {run}", steps
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(self._name, total=steps)
        if not steps:
            err.print(f"{self._name}: finished earlier")

    def resumes(self, stage: int, step: int) -> None:
        """Say where the run goes on, if there is anything left to do."""
        if self._left:
            place = f"step {step} of stage {stage + 1}" if step else f"stage {stage}"
            err.print(f"{self._name}: goes on after {place}")

    def steps(self, count: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bar.advance(self._task, count)

    def scored(self, stage: int, recalls: dict[str, float]) -> None:
        """Say what the stage came to."""
        told = "  ".join(f"{pair} {100 * value:.1f}" for pair, value in recalls.items())
        err.print(f"{self._name} stage {stage}: R@1 {told or 'no pair yet'}")
