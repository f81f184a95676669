"""What a run has taken: time, steps, memory."""

import resource
import sys

import torch

from continual_mm.runs.scales import Scales
from continual_mm.runs.session import Session
from continual_mm.runs.stopwatch import Stopwatch

Cost = dict[str, float | int | str | None]


def cost(
    session: Session,
    seconds: float,
    device: torch.device,
    *,
    stopwatch: Stopwatch,
    scales: Scales,
) -> Cost:
    """What goes into a run's ``cost.json``.

    Args:
        session: The finished training.
        seconds: Spent on it, by all processes that worked on it.
        device: Where it was trained.
        stopwatch: Has seen the last stage, unless another process trained that.
        scales: The same; without it what is kept at the run's end is counted.
    """
    training = [experience.training for experience in session.benchmark.train]
    held = session.memory_bytes if scales.held is None else scales.held
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
