"""What penalties on weights share: a parabola around old weights, and gradients of batches."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from continual_mm.data.batch import Batch
from continual_mm.learning.learner import Learner
from continual_mm.plugins.plugin import Plugin, stage_batches
from continual_mm.space.naming import named_parameters, trainable
from continual_mm.space.space import Embedded

Measure = Callable[[Batch, Mapping[str, Embedded]], Tensor | None]
"""(a batch, what the space made of it) -> a scalar, or None where there is nothing to measure."""


class WeightPenalty(Plugin):
    """Base of plugins that add ``weight * factor * sum_i F_i (w_i - c_i)^2`` to the loss.

    The sum is over the trained weights w that have an importance F; c is where the parabola has its
    minimum. A subclass finds importances and centres, by canonical parameter name.
    """

    term: str
    """The loss term's name."""

    factor = 1.0

    saved: tuple[str, ...] = ("importance", "centre")

    def __init__(self, *, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self._importance: dict[str, Tensor] = {}
        self._centre: dict[str, Tensor] = {}

    def before_backward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Add the penalty."""
        if not self.weight:
            return
        penalties = [
            (self._importance[name] * (value - self._centre[name]).square()).sum()
            for name, value in named_parameters(strategy.space)
            if name in self._importance and value.requires_grad
        ]
        if penalties:
            penalty = torch.stack(penalties).sum()
            strategy.add_term(self.term, penalty, weight=self.weight * self.factor)


def gradients(
    learner: Learner, measure: Measure, *, batches: int, rows: int
) -> Iterator[tuple[dict[str, Tensor], int]]:
    """(gradient of the measure by parameter name, rows) for batches from :func:`stage_batches`.

    It ends with the first batch that has nothing to measure: all others have nothing either.
    """
    parameters = trainable(learner.space)
    for batch in stage_batches(learner, rows=rows, batches=batches):
        with learner.precision():
            embedded = learner.model(batch)
        value = measure(batch, embedded)
        if value is None:
            return
        found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        named = zip(parameters, found, strict=True)
        yield {name: each for name, each in named if each is not None}, len(batch)
