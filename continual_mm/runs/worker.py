"""Does runs one after another, here or in a process of its own; imports torch and Avalanche."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from continual_mm.data import registry as datasets
from continual_mm.data.dataset import Dataset
from continual_mm.definitions.scenario import Protocol, Scenario
from continual_mm.evaluation.protocols import Scored, load_scored
from continual_mm.runs.listener import HaltedError, Listener
from continual_mm.runs.parallel import Ended, Task, Told
from continual_mm.runs.run import run_specified
from continual_mm.system.errors import InputError

FAILURES = (FloatingPointError, MemoryError, OSError, RuntimeError)
"""What may go wrong in one run and leave others unharmed; anything else is a mistake of ours."""

TELL_EVERY = 0.1
"""Seconds between two messages that only say how many steps were made."""


_Key = tuple[str, str, bool | tuple[str, ...]]
"""Name, folder and standardising of a dataset."""


class Trainer:
    """Does runs; a dataset is loaded once, however many of them need it."""

    def __init__(self) -> None:
        self._datasets: dict[_Key, Dataset] = {}
        self._scored: dict[tuple[_Key, tuple[Protocol, ...]], Scored] = {}

    def train(self, task: Task, listener: Listener) -> Ended:
        """Do one run.

        Raises:
            InputError: If its dataset cannot be used.
        """
        dataset = None
        try:
            dataset, scored = self._loaded(task.specification.scenario)
            given = task.specification, dataset, task.out
            run_specified(*given, scored=scored, listener=listener, **task.options)
        except InputError as error:
            # What one run is refused for may be its own; what a dataset is, is everyone's.
            if dataset is None:
                raise
            return Ended("; ".join(map(str, error.problems)), refused=True)
        except HaltedError as error:
            return Ended(str(error), halted=error.halt)
        except FAILURES as error:
            told = next(iter(str(error).strip().splitlines()), type(error).__name__)
            return Ended(told, diverged=isinstance(error, FloatingPointError))
        return Ended()

    def _loaded(self, scenario: Scenario) -> tuple[Dataset, Scored]:
        """What is trained on, and what protocols score."""
        key = scenario.dataset, scenario.folder, scenario.standardise
        if key not in self._datasets:
            self._datasets[key] = datasets.load(
                scenario.dataset, folder=Path(scenario.folder), standardise=scenario.standardise
            )
        dataset, both = self._datasets[key], (key, scenario.protocols)
        if both not in self._scored:
            self._scored[both] = load_scored(scenario, dataset)
        return dataset, self._scored[both]


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use so many CPU threads meanwhile; as many as it likes, if None."""
    if count is None:
        yield
        return
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


def trainer(threads: int) -> Callable[[Task, Callable[[Told], None]], Ended]:
    """What a process of a pool does with each task.

    Args:
        threads: CPU threads that torch may use.
    """
    torch.set_num_threads(threads)
    made = Trainer()
    return lambda task, report: made.train(task, Teller(report))


class Teller(Listener):
    """Reports to another process what a listener hears."""

    def __init__(self, report: Callable[[Told], None]) -> None:
        self._report = report
        self._steps = 0
        self._told = time.monotonic()

    def begins(self, *given: Any, **named: Any) -> None:
        """Pass it on."""
        self._tell("begins", given, named)

    def resumes(self, *given: Any, **named: Any) -> None:
        """Pass it on."""
        self._tell("resumes", given, named)

    def steps(self, count: int) -> None:
        """Pass it on now and then."""
        self._steps += count
        if time.monotonic() - self._told >= TELL_EVERY:
            self._tell_steps()

    def scored(self, *given: Any, **named: Any) -> None:
        """Pass it on."""
        self._tell("scored", given, named)

    def ends(self, *given: Any, **named: Any) -> None:
        """Pass it on."""
        self._tell("ends", given, named)

    def _tell(self, event: str, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._tell_steps()
        self._report(Told(event, given, named))

    def _tell_steps(self) -> None:
        if self._steps:
            self._report(Told("steps", (self._steps,)))
        self._steps, self._told = 0, time.monotonic()
