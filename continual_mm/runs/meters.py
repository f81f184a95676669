"""What a run has taken: time, steps, memory."""

import resource
import sys
import time
from itertools import pairwise
from statistics import median
from typing import Any

import torch

from continual_mm.learning.avalanche import BaseSGDPlugin
from continual_mm.learning.learner import Learner
from continual_mm.plugins.plugin import Plugin
from continual_mm.runs.reporter import RunReporter
from continual_mm.runs.session import Session


class StepCounter(BaseSGDPlugin[Any]):
    """Reports every optimiser step."""

    def __init__(self, run_reporter: RunReporter) -> None:
        super().__init__()
        self._run_reporter = run_reporter

    def after_training_iteration(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """A step was made."""
        self._run_reporter.steps(1)


class MemoryMeter(BaseSGDPlugin[Any]):
    """Counts the bytes that plugins hold at a stage's last step, before they take in the stage.

    At a run's end it would be another number: by then the memory has been divided anew, and there
    are teachers and importances for a stage that does not exist. None before a stage was trained.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held: int | None = None

    def after_training_epoch(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """A stage, which is an epoch, has made its last step."""
        self.held = sum(
            tensor.nbytes
            for plugin in strategy.plugins
            if isinstance(plugin, Plugin)
            for tensor in plugin.state().values()
        )


class Stopwatch(BaseSGDPlugin[Any]):
    """Takes the time from one optimiser step of a stage to the next, plugins and batches included.

    The median is robust to evaluations and checkpoints between two steps, and to short loads of
    other processes. It is that of the last stage trained by this
    process, which is the one in which there is something to protect.
    """

    def __init__(self) -> None:
        super().__init__()
        self._times: list[float] = []

    @property
    def step_seconds(self) -> float | None:
        """Median over the last stage; None if fewer than two of its steps were made here."""
        passed = [later - earlier for earlier, later in pairwise(self._times)]
        return median(passed) if passed else None

    def before_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """A stage begins."""
        self._times.clear()

    def after_training_iteration(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """A step was made."""
        self._times.append(time.perf_counter())


Cost = dict[str, float | int | str | None]


def cost(
    session: Session,
    seconds: float,
    device: torch.device,
    *,
    stopwatch: Stopwatch,
    memory: MemoryMeter,
) -> Cost:
    """What goes into a run's ``cost.json``; ``seconds`` are those of all processes.

    What is kept is counted at the run's end if another process trained the last stage.
    """
    training = [experience.training for experience in session.benchmark.train]
    held = session.memory_bytes if memory.held is None else memory.held
    return {
        "seconds": seconds,
        "steps": sum(settings.steps for settings in training) + session.extra_steps,
        "memory_items": session.remembered_items,
        "memory_bytes": held,
        "recalled_rows": session.recalled_rows,
        "parameters": sum(p.numel() for p in session.learner.parameters().values()),
        "peak_memory_bytes": _peak_memory(device),
        "device": str(device),
        "step_seconds": stopwatch.step_seconds,
    }


def _peak_memory(device: torch.device) -> int:
    """Most bytes on the accelerator, else of this whole process since it began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
