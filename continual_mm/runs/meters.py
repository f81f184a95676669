"""What a run has taken: time, steps, memory."""

import time
from collections.abc import Mapping
from itertools import pairwise
from statistics import median
from typing import Any

import torch

from continual_mm.learning.avalanche import BaseSGDPlugin
from continual_mm.learning.learner import Learner
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.recollection import recollection
from continual_mm.runs.history import Cost
from continual_mm.runs.reporter import RunReporter
from continual_mm.runs.session import Session
from continual_mm.system.memory import PeakMemory


class Meter(BaseSGDPlugin[Any]):
    """Reports steps, and measures a run from when this is made, and its last stage's steps.

    That stage is the one which has old pairs. What plugins keep is measured at its last step: at
    the run's end it would be another number, for by then the memory has been divided anew, and
    there are teachers and importances for a stage that does not exist.
    """

    def __init__(self, reporter: RunReporter, device: torch.device) -> None:
        super().__init__()
        self._reporter = reporter
        self._device = device
        self._times: list[float] = []
        self._memory = PeakMemory()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self._began = time.monotonic()
        self._before: Mapping[str, Any] = {}
        self.memory_bytes: int | None = None
        self.recalled_rows = 0

    def goes_on(self, notes: Mapping[str, Any]) -> None:
        """Count what other processes noted of the run in a checkpoint."""
        self._before, self._began = notes, time.monotonic()
        self.memory_bytes = notes.get("memory_bytes")
        self.recalled_rows = int(notes.get("recalled_rows", 0))

    @property
    def notes(self) -> dict[str, float | int | None]:
        """What :meth:`goes_on` takes; those of an earlier version had ``seconds`` only."""
        return {
            "seconds": self.seconds,
            "step_seconds": self.step_seconds,
            "memory_bytes": self.memory_bytes,
            "recalled_rows": self.recalled_rows,
            "peak_memory_bytes": self.peak_memory_bytes,
        }

    @property
    def seconds(self) -> float:
        """Time spent on the run by all processes."""
        return float(self._before.get("seconds", 0.0)) + time.monotonic() - self._began

    @property
    def peak_memory_bytes(self) -> int | None:
        """Most bytes on the accelerator, else of a whole process, while it was at the run."""
        if self._device.type == "cuda":
            own: int | None = torch.cuda.max_memory_allocated(self._device)
        else:
            own = self._memory.bytes
        return None if own is None else max(own, self._before.get("peak_memory_bytes") or 0)

    @property
    def step_seconds(self) -> float | None:
        """Median time from one step to the next, plugins and batches included; None below two.

        It is robust to evaluations and checkpoints between two steps, and to short loads of other
        processes.
        """
        passed = [later - earlier for earlier, later in pairwise(self._times)]
        return median(passed) if passed else self._before.get("step_seconds")

    def before_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """A stage begins."""
        self._times.clear()

    def after_training_iteration(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """A step was made."""
        self._reporter.steps(1)
        self._times.append(time.perf_counter())

    def after_training_epoch(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """A stage, which is an epoch, has made its last step."""
        memory = recollection(strategy)
        self.memory_bytes = held_bytes(strategy)
        self.recalled_rows = 0 if memory is None else len(memory.drawn)


def held_bytes(learner: Learner) -> int:
    """Bytes kept of the past (items, teachers, importances) or added to keep it (subspaces)."""
    own = (plugin for plugin in learner.plugins if isinstance(plugin, Plugin))
    tensors = [tensor for plugin in own for tensor in plugin.state().values()]
    grown = learner.space.subspaces.state_dict().values()
    return sum(tensor.nbytes for tensor in (*tensors, *grown))


def cost(session: Session, meter: Meter) -> Cost:
    """What a run has taken, as :class:`~continual_mm.runs.history.History` has it."""
    learner, plugins = session.learner, session.plugins
    steps = int(learner.clock.train_iterations)  # a plugin may have ended a stage early
    return {
        "seconds": meter.seconds,
        "steps": steps + sum(plugin.extra_steps for plugin in plugins.values()),
        "memory_items": 0 if learner.memory is None else len(learner.memory),
        "memory_bytes": held_bytes(learner) if meter.memory_bytes is None else meter.memory_bytes,
        "recalled_rows": meter.recalled_rows,
        "parameters": sum(p.numel() for p in learner.parameters().values()),
        "peak_memory_bytes": meter.peak_memory_bytes,
        "device": str(learner.device),
        "step_seconds": meter.step_seconds,
        "vector_size": vector_size(learner),
    }


def vector_size(learner: Learner) -> int:
    """Numbers that an item has, in all vectors by which the pairs of its modality compare it.

    Of the modality that has most: where pairs have towers of their own, each gives one more.
    """
    space = learner.space
    names = [modality.name for modality in space.modalities]
    sizes = [0]
    for name in names:
        own = sum(name in towers for towers in learner.own_towers.values())
        shared = space.size if own < max(len(names) - 1, 1) else 0
        sizes.append(shared + own * space.settings.dim)
    return max(sizes)
