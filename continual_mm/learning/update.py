"""One step of an optimiser: the gradient is unscaled, clipped and looked at before weights move."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer


def update(
    optimizer: Optimizer,
    scaler: torch.amp.GradScaler,
    *,
    clip_norm: float,
    look: Callable[[dict[str, Tensor]], None],
    trains: bool = True,
) -> None:
    """Make the step that the gradients ask for.

    Args:
        optimizer: Whose parameters have their gradients.
        scaler: What the loss was scaled with.
        clip_norm: The largest length of the gradient; 0 leaves it as it is.
        look: Told of ``the gradient``, its length before it was clipped, while a refusal can still
            keep the weights as they are; of nothing where the scaler itself skips steps that
            overflow.
        trains: Whether the loss has a gradient; without one the scaler refuses a step.
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
