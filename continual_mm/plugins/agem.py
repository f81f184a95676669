"""A-GEM: no step may raise the remembered rows' objective."""

from typing import Any

import torch
from torch import Tensor

from continual_mm.learning.learner import Learner
from continual_mm.plugins.recollection import FromMemory
from continual_mm.plugins.registry import checked
from continual_mm.space.naming import trainable


class AGEM(FromMemory):
    """Averaged gradient episodic memory (Chaudhry et al., arXiv 1812.00420).

    The step's gradient, of all loss terms, is projected where it conflicts with the gradient of
    MCN's losses on the remembered rows (:func:`projected`). The remembered rows only forbid;
    nothing pulls towards them as :class:`Replay` does. What is then clipped and given to Adam is
    the projected gradient. Adam divides each weight's step by the size of its gradients and adds
    momentum, so that, as in every use of A-GEM with Adam, the promise holds for the gradient and
    roughly for the step.

    A tower that the current rows do not train takes a gradient from the projection alone. Where
    nothing conflicts it is zero, and Adam's momentum then runs out.

    Args:
        rows: Remembered rows in each batch; all that there are, if fewer.
    """

    def __init__(self, *, rows: int = 128) -> None:
        super().__init__()
        self.memory_rows = checked("agem.rows", rows)
        self._reference: dict[str, Tensor] = {}

    def before_backward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Find the gradient of the remembered rows' objective, scaled as the loss will be."""
        self._reference = {}
        terms = strategy.objective(strategy.remembered) if len(strategy.remembered) else {}
        if not terms:
            return
        loss = strategy.scaler.scale(torch.stack(list(terms.values())).sum())
        if not loss.requires_grad:  # all that remembered rows would train is frozen
            return
        parameters = trainable(strategy.space)
        gradients = torch.autograd.grad(
            loss, list(parameters.values()), retain_graph=True, allow_unused=True
        )
        self._reference = {
            name: gradient
            for name, gradient in zip(parameters, gradients, strict=True)
            if gradient is not None
        }

    def before_update(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Take from the gradient what would raise the remembered rows' objective."""
        if not self._reference:
            return
        parameters = trainable(strategy.space)
        for name in self._reference:
            if parameters[name].grad is None:
                parameters[name].grad = torch.zeros_like(parameters[name])
        # Where the reference is zero the projection changes nothing: no need to look there.
        kept = [value for name in self._reference if (value := parameters[name].grad) is not None]
        gradient = torch.cat([each.reshape(-1) for each in kept])
        reference = torch.cat([each.reshape(-1) for each in self._reference.values()])
        self._reference = {}
        parts = torch.split(projected(gradient, reference), [each.numel() for each in kept])
        for each, part in zip(kept, parts, strict=True):
            each.copy_(part.view_as(each))


def projected(gradient: Tensor, reference: Tensor) -> Tensor:
    r"""The nearest gradient whose step does not raise the reference's loss.

    .. math::
        g - \frac{\min(g^\top r, 0)}{r^\top r} \, r

    with g the gradient and r the reference, both (n,). Where the two agree g stays as it is, bit
    for bit. The device is not waited for.

    >>> projected(torch.tensor([1.0, -2.0]), torch.tensor([0.0, 3.0]))
    tensor([1., 0.])
    """
    conflict = (gradient @ reference).clamp(max=0)
    length = reference @ reference
    return gradient - conflict / length.masked_fill(length == 0, 1.0) * reference
