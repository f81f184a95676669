"""Synaptic intelligence: weights that brought the loss down are pulled back to where they were."""

from typing import Any

import torch
from torch import Tensor

from continual_mm.learning.learner import Learner
from continual_mm.plugins.importance import WeightPenalty
from continual_mm.plugins.registry import checked
from continual_mm.space.naming import trainable


class SI(WeightPenalty):
    """Path integral regularisation (Zenke et al. 2017, arXiv 1703.04200), keyed by name.

    ``sum_i importance_i (w_i - centre_i)^2``, with the centre the weights at the last stage's end.
    While a stage trains, each step adds ``-gradient * step`` to a weight's path: how much that
    weight has brought the loss down. At its end ``path / (way^2 + damping)`` is added to the
    importance, with the way from the stage's first to its last weights; where the sum is below
    zero it becomes zero, as in the authors' program, for such a weight would be pushed away.

    The gradient is that of the loss without this penalty: taken before clipping, without the scale
    of float16, and less the parabola's own slope. The step is what the optimiser made of it, zero
    if the scaler skipped it. Terms of other plugins count: they are part of what is learned.

    Args:
        weight: Weight of the penalty.
        damping: What keeps the importance of weights that hardly moved from growing without end, in
            units of a weight squared.
    """

    term = "si"
    saved = (*WeightPenalty.saved, "path")

    def __init__(self, *, weight: float = 30.0, damping: float = 0.001) -> None:
        super().__init__(weight=checked("si.weight", weight))
        self.damping = checked("si.damping", damping)
        self._path: dict[str, Tensor] = {}
        self._before: dict[str, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def after_backward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Note gradients and weights before anything is done with them."""
        if not self.weight:
            return
        self._before = {}
        scale = strategy.scaler.scale(torch.ones((), device=strategy.device))
        for name, value in trainable(strategy.space).items():
            if value.grad is None:
                continue
            slope = value.grad / scale
            weight = value.detach().clone()
            if name in self._importance:
                pull = self._importance[name] * (weight - self._centre[name])
                slope -= 2 * self.weight * pull
            self._before[name] = slope, weight

    @torch.no_grad()
    def after_update(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Add what the step has brought."""
        values = trainable(strategy.space)
        for name, (slope, before) in self._before.items():
            if name not in self._path:
                self._path[name] = torch.zeros_like(before)
                self._centre.setdefault(name, before)
            step = values[name] - before
            # A step that float16 made overflow is skipped: its gradient is not finite.
            self._path[name] -= torch.where(step == 0, 0.0, slope * step)
        self._before = {}

    @torch.no_grad()
    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Turn paths into importances, and start anew from the present weights."""
        values = trainable(strategy.space)
        for name in self._path.keys() & values.keys():
            way = values[name] - self._centre[name]
            gained = self._path[name] / (way.square() + self.damping)
            self._importance[name] = (self._importance.get(name, 0.0) + gained).clamp(min=0)
            self._centre[name] = values[name].detach().clone()
        self._path = {}
