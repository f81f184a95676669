"""Trains runs one after another, here or in a process of a pool; imports torch and Avalanche."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from continual_mm.data import corpora
from continual_mm.data.dataset import Dataset
from continual_mm.definitions.scenario import Protocol
from continual_mm.evaluation.protocols import Scored, load_scored
from continual_mm.plugins.files import offer
from continual_mm.runs.folder import RunFolder
from continual_mm.runs.parallel import Call, Outcome, Task
from continual_mm.runs.reporter import HaltedError, RunReporter
from continual_mm.runs.run import run_specified
from continual_mm.runs.specification import OpenedScenario
from continual_mm.system.errors import InputError
from continual_mm.system.reading import unforeseen

FAILURES = (FloatingPointError, MemoryError, OSError, RuntimeError)
"""What may go wrong in one run and leave others unharmed. Anything else is a mistake of ours, of
which the traceback is kept; others are unharmed all the same."""

REPORT_EVERY = 0.1  # seconds between two messages that only say how many steps were made
_Key = tuple[tuple[str, ...], str, bool | tuple[str, ...], str]
"""Names of datasets, their folder, how they are standardised, and the run to start from."""


class Trainer:
    """Trains runs; each dataset is loaded once, and ``loads`` called with its name before."""

    def __init__(
        self, threads: int | None = None, loads: Callable[[str], None] = lambda _: None
    ) -> None:
        self._loads = loads
        self._threads = threads
        self._datasets: dict[_Key, Dataset] = {}
        self._scored: dict[tuple[_Key, tuple[Protocol, ...]], Scored] = {}

    def train(self, task: Task, run_reporter: RunReporter) -> Outcome:
        """Train one run; a dataset that cannot be used is refused."""
        dataset, scored = self._loaded(task.specification.opened)
        given = task.specification, dataset, task.out
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(self._threads or before)
            run_specified(*given, scored=scored, reporter=run_reporter, **task.options)
        except (InputError, *FAILURES) as error:
            return Outcome(
                task.folder,
                RunFolder(task.folder).reason(error),
                refused=isinstance(error, InputError),
                diverged=isinstance(error, FloatingPointError),
                halted=error.halt if isinstance(error, HaltedError) else None,
            )
        except Exception as error:  # noqa: BLE001 - see above
            return Outcome(task.folder, "; ".join(filter(None, unforeseen(error))))
        finally:
            torch.set_num_threads(before)
        return Outcome(task.folder)

    def _loaded(self, opened: OpenedScenario) -> tuple[Dataset, Scored]:
        """What is trained on, and what protocols score."""
        scenario = opened.scenario
        key = scenario.corpora, scenario.folder, scenario.standardise, scenario.start
        if key not in self._datasets:
            self._loads(f"dataset {', '.join(scenario.corpora)}")
            self._datasets[key] = corpora.load(
                scenario.corpora,
                folder=Path(scenario.folder),
                standardise=scenario.standardise,
                known=opened.known,
            )
        dataset, both = self._datasets[key], (key, scenario.protocols)
        if both not in self._scored:
            self._scored[both] = load_scored(scenario, dataset)
        return dataset, self._scored[both]


def trainer(
    threads: int, plugin_files: tuple[str, ...] = ()
) -> Callable[[Task, Callable[[Call], None]], Outcome]:
    """What a process of a pool does with each task; strategies may name plugins of some files."""
    offer(map(Path, plugin_files))
    made = Trainer(threads)
    return lambda task, report: made.train(task, Forwarder(report))


class Forwarder(RunReporter):
    """Reports calls of its methods to another process, steps a few times a second."""

    def __init__(self, report: Callable[[Call], None]) -> None:
        self._report = report
        self._steps = 0
        self._reported = time.monotonic()

    def begins(self, run: str, stages: int, steps: int) -> None:
        """Forward the call."""
        self._forward("begins", run, stages, steps)

    def resumes(self, stage: int, step: int) -> None:
        """Forward the call."""
        self._forward("resumes", stage, step)

    def steps(self, count: int) -> None:
        """Forward it now and then, with the sum of the counts."""
        self._steps += count
        if time.monotonic() - self._reported >= REPORT_EVERY:
            self._forward_steps()

    def scored(self, stage: int, recalls: dict[str, float]) -> None:
        """Forward the call."""
        self._forward("scored", stage, recalls)

    def warns(self, text: str) -> None:
        """Forward the call."""
        self._forward("warns", text)

    def ends(self, seconds: float) -> None:
        """Forward the call."""
        self._forward("ends", seconds)

    def _forward(self, method: str, *arguments: Any) -> None:
        self._forward_steps()
        self._report((method, arguments))

    def _forward_steps(self) -> None:
        if self._steps:
            self._report(("steps", (self._steps,)))
        self._steps, self._reported = 0, time.monotonic()
