"""One step of an optimiser: the gradient is unscaled, clipped and looked at before weights move."""

from collections.abc import Callable, Mapping
from math import cos, pi

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Adam, Optimizer

from continual_mm.definitions.scenario import Training


def update(
    optimizer: Optimizer,
    scaler: torch.amp.GradScaler,
    *,
    clip_norm: float,
    look: Callable[[dict[str, Tensor]], None],
    trains: bool = True,
) -> None:
    """Make the step that the gradients ask for, clipped to the length ``clip_norm`` unless it is 0.

    ``look`` is given ``the gradient``, its length before it was clipped, while an error can still
    keep the weights as they are; nothing where the scaler itself skips steps that overflow.
    ``trains`` is whether the loss has a gradient; without one the scaler refuses a step.
    """
    if trains:
        scaler.unscale_(optimizer)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    length = get_total_norm([p.grad for p in parameters if p.grad is not None])
    if clip_norm:
        clip_grads_with_norm_(parameters, clip_norm, length)
    look({} if scaler.is_enabled() else {"the gradient": length})
    if trains:
        scaler.step(optimizer)
        scaler.update()


def adam(
    parameters: list[Parameter], rate: float, lr_scales: Mapping[Parameter, float] | None = None
) -> Adam:
    """Adam in one pass over all weights where the device can; otherwise a dozen per weight.

    ``lr_scales`` are factors on the learning rate; each has a group, which keeps its ``lr_scale``.
    """
    groups: dict[float, list[Parameter]] = {}
    for parameter in parameters:
        groups.setdefault((lr_scales or {}).get(parameter, 1.0), []).append(parameter)
    fused = parameters[0].device.type in ("cpu", "cuda")
    scaled = [
        {"params": group, "lr": rate * scale, "lr_scale": scale} for scale, group in groups.items()
    ]
    return Adam(scaled, lr=rate, fused=fused)


def learning_rate(step: int, training: Training, *, from_zero: bool = False) -> float:
    """The rate of a stage's 0-based optimiser step.

    Linear warm-up to the peak over ``warmup_steps`` steps, then the schedule over what remains; a
    cosine ends just above zero at the last step. Where the warm-up starts from zero, as MCN's does,
    the first step changes nothing.

    >>> learning_rate(0, Training(steps=10, learning_rate=1.0, warmup_steps=4))
    0.25
    """
    peak = training.learning_rate
    if step < training.warmup_steps:
        return peak * (step + (not from_zero)) / training.warmup_steps
    if training.schedule == "constant":
        return peak
    remaining = max(training.steps - training.warmup_steps, 1)
    return peak * 0.5 * (1 + cos(pi * (step - training.warmup_steps) / remaining))


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed torch's global generators of the CPU and of a device.

    ``torch.manual_seed`` keeps a list of calls where CUDA is not in use yet, which grows each step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
