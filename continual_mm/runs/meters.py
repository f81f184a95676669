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
from continual_mm.plugins.recollection import recollection
from continual_mm.runs.reporter import RunReporter
from continual_mm.runs.session import Session


class Meter(BaseSGDPlugin[Any]):
    """Reports steps, and measures the last stage trained by this process, which has old pairs.

    ``held`` are the bytes that plugins keep at its last step; None before a stage was trained. At
    the run's end it would be another number: by then the memory has been divided anew, and there
    are teachers and importances for a stage that does not exist.
    """

    def __init__(self, reporter: RunReporter) -> None:
        super().__init__()
        self._reporter = reporter
        self._times: list[float] = []
        self.held: int | None = None

    @property
    def step_seconds(self) -> float | None:
        """Median time from one step to the next, plugins and batches included; None below two.

        It is robust to evaluations and checkpoints between two steps, and to short loads of other
        processes.
        """
        passed = [later - earlier for earlier, later in pairwise(self._times)]
        return median(passed) if passed else None

    def before_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """A stage begins."""
        self._times.clear()

    def after_training_iteration(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """A step was made."""
        self._reporter.steps(1)
        self._times.append(time.perf_counter())

    def after_training_epoch(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """A stage, which is an epoch, has made its last step."""
        self.held = held_bytes(strategy)


def held_bytes(learner: Learner) -> int:
    """Bytes kept of the past (items, teachers, importances) or added to keep it (subspaces)."""
    own = (plugin for plugin in learner.plugins if isinstance(plugin, Plugin))
    tensors = [tensor for plugin in own for tensor in plugin.state().values()]
    grown = learner.space.subspaces.state_dict().values()
    return sum(tensor.nbytes for tensor in (*tensors, *grown))


Cost = dict[str, float | int | str | None]


def cost(session: Session, seconds: float, device: torch.device, meter: Meter) -> Cost:
    """What goes into a run's ``cost.json``; ``seconds`` are those of all processes.

    What is kept is counted at the run's end if another process trained the last stage.
    """
    learner, plugins = session.learner, session.plugins
    steps = sum(experience.training.steps for experience in session.benchmark.train)
    memory = recollection(learner)
    return {
        "seconds": seconds,
        "steps": steps + sum(plugin.extra_steps for plugin in plugins.values()),
        "memory_items": 0 if learner.memory is None else len(learner.memory),
        "memory_bytes": held_bytes(learner) if meter.held is None else meter.held,
        "recalled_rows": 0 if memory is None else len(memory.drawn),
        "parameters": sum(p.numel() for p in learner.parameters().values()),
        "peak_memory_bytes": _peak_memory(device),
        "device": str(device),
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


def _peak_memory(device: torch.device) -> int:
    """Most bytes on the accelerator, else of this whole process since it began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
