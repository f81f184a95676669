"""How far runs are: a bar for each on a terminal, a plain line per stage where there is none."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from continual_mm.cli.terminal import err
from continual_mm.preparation.extraction.job import ExtractionReporter
from continual_mm.runs.reporter import Reporter, RunReporter, percent
from continual_mm.system.errors import SHOWN

_Thing = TypeVar("_Thing")

_DIFFERING = re.compile(r"'.*'|^.*?\.\w{2,5}(?= )|\d[\d.,]*")
"""What differs between what is said of two clips for one cause: names, texts and numbers."""


def bars(console: Console = err) -> Progress:
    """Bars that are gone at the end; each task is added with its name, ``total`` and ``unit``."""
    name = TextColumn("{task.description}", markup=False)
    unit = TextColumn("{task.fields[unit]}")
    return _shown(console, name, BarColumn(), MofNCompleteColumn(), unit, TimeRemainingColumn())


@contextmanager
def counting(things: Iterable[_Thing], unit: str) -> Iterator[Iterable[_Thing]]:
    """Count things as they are taken, on standard error; ``unit`` is what they are called."""
    spinner = SpinnerColumn("dots" if err.encoding.startswith("utf") else "line")
    columns = (spinner, MofNCompleteColumn(), TextColumn(unit), TimeElapsedColumn())
    with _shown(err, *columns) as shown:
        yield shown.track(things, total=None, description="")


def _shown(console: Console, *columns: ProgressColumn) -> Progress:
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


class RunProgress(Reporter):
    """One display for many runs: a bar for each in progress, and one for all of them.

    ``split`` is whose scores the runs report.
    """

    def __init__(self, runs: int, console: Console = err, *, split: str = "test") -> None:
        self.bars = bars(console)
        self.say = console.print
        self.score = "R@1" if split == "test" else f"{split} R@1"
        self._runs = runs
        self._loaded: set[str] = set()
        self._names: dict[str, str] = {}
        self._all: TaskID | None = None

    def __enter__(self) -> "RunProgress":
        self.bars.start()
        if self._runs > 1:
            self._all = self.bars.add_task("all", total=self._runs, unit="runs")
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def loads(self, what: str) -> None:
        """Say what takes the seconds before the first step, each thing once."""
        if what not in self._loaded:
            self._loaded.add(what)
            self.say(f"loading {what} ...", style="dim")

    def run_reporter(self, run: str) -> RunReporter:
        """A bar for a run, once it begins."""
        return _RunBar(self, self._named(run))

    def skips(self, run: str) -> None:
        """Say that nothing is left to do."""
        self.end(self._named(run), "finished earlier")

    def fails(self, run: str, error: str) -> None:
        """Say why."""
        self.end(self._named(run), f"failed: {error}")

    def halts(self, run: str, reason: str) -> None:
        """Say where."""
        self.end(self._named(run), reason)

    def end(self, name: str, how: str = "") -> None:
        """Say how a run ended, take its bar away, if it has one, and count it."""
        if how:
            self.say(f"{name}: {how}")
        for bar in [task.id for task in self.bars.tasks if task.description == name]:
            self.bars.remove_task(bar)
        if self._all is not None:
            self.bars.advance(self._all)

    def _named(self, run: str) -> str:
        """A run's name with its number, in the order in which runs are taken up."""
        return self._names.setdefault(run, f"[{len(self._names) + 1}/{self._runs}] {run}")


class _RunBar(RunReporter):
    """The bar and the lines of one run."""

    def __init__(self, progress: RunProgress, name: str) -> None:
        self._progress, self._name = progress, name
        self._bar: TaskID | None = None
        self._idle = True

    def begins(self, run: str, stages: int, steps: int) -> None:
        """Show the run, if there are steps left."""
        if steps:
            self._bar = self._progress.bars.add_task(self._name, total=steps, unit="steps")

    def resumes(self, stage: int, step: int) -> None:
        """Say where the run goes on, if there is anything left to do."""
        if self._bar is not None:
            place = f"step {step} of stage {stage + 1}" if step else f"stage {stage}"
            self._progress.say(f"{self._name}: goes on after {place}")

    def steps(self, count: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._progress.bars.advance(self._bar, count)

    def scored(self, stage: int, recalls: dict[str, float]) -> None:
        """Say what the stage came to."""
        self._idle = False
        shown = "  ".join(f"{pair} {percent(value)}" for pair, value in recalls.items())
        self._progress.say(
            f"{self._name} stage {stage}: {self._progress.score} {shown or 'no pair yet'}"
        )

    def warns(self, text: str) -> None:
        """Say it."""
        self._progress.say(f"{self._name} {text}", style="yellow")

    def ends(self, seconds: float) -> None:
        """Take the bar away; say so if nothing was left to do."""
        self._progress.end(self._name, "finished earlier" if self._idle else "")


class ClipBar(ExtractionReporter):
    """Shows the clips that are done, and those that fail; a line at times without a terminal.

    Of those that fail for one cause the first few have a line, unless it is ``verbose``.
    """

    def __init__(self, *, every: float = 30.0, verbose: bool = False) -> None:
        self._bars = bars()
        self._verbose = verbose
        self._causes = Counter[str]()
        self._first: dict[str, str] = {}  # what was said first, by cause
        self._bar: TaskID | None = None
        self._every = every
        self._clips = self._done = 0
        self._last = monotonic()

    def __enter__(self) -> "ClipBar":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()
        for cause, count in self._causes.items():
            if count > SHOWN and not self._verbose:
                err.print(f"{count - SHOWN:,} more failed like {self._first[cause]}")

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
        self._last = monotonic()
        self._bar = self._bars.add_task("", total=clips, completed=clips - left, unit="clips")

    def finished(self, clip: str) -> None:
        """One more."""
        self._advance()

    def failed(self, clip: str, problem: str) -> None:
        """Say why."""
        cause = _DIFFERING.sub("", problem.replace(clip, ""))
        self._causes[cause] += 1
        self._first.setdefault(cause, f"{clip}: {problem}")
        if self._verbose or self._causes[cause] <= SHOWN:
            err.print(f"{clip}: {problem}")
        self._advance()

    def ends(self, finished: int, failed: int) -> None:
        """Say so where there was no bar to see it on."""
        self._report()

    def _advance(self) -> None:
        self._done += 1
        if self._bar is not None:
            self._bars.advance(self._bar)
        if monotonic() - self._last >= self._every and self._done < self._clips:
            self._report()

    def _report(self) -> None:
        self._last = monotonic()
        if not err.is_terminal:
            err.print(f"{self._done:,} of {self._clips:,} clips are done")
