"""Elastic weight consolidation on the contrastive objective, keyed by parameter name."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from continual_mm.data.batch import Batch
from continual_mm.learning.learner import Learner
from continual_mm.learning.objective import Part, contrast
from continual_mm.plugins.importance import WeightPenalty, gradients
from continual_mm.plugins.registry import checked
from continual_mm.space.naming import named_parameters, trainable
from continual_mm.space.space import Embedded


class EWC(WeightPenalty):
    """Quadratic pull towards the weights of finished stages (Kirkpatrick et al. 2017).

    ``sum_s sum_i F_s,i (w_i - w_s,i)^2 / 2`` over the stages s, with F_s the diagonal Fisher
    information of the stage's contrastive objective. Since a sum of parabolas is a parabola, one
    importance and one centre per parameter hold it exactly, however many stages there are.

    The contrast couples the rows of a batch, so there is no gradient per item: F is the mean of the
    squared gradients of small batches, times their size.

    Online EWC (Schwarz et al. 2018) pulls towards the last stage's weights alone, with a running
    sum of importances in which older ones count less: ``F <- decay * F + F_s``. Both are the same
    until a third stage.

    Args:
        weight: Weight of the penalty.
        batches: Batches that the Fisher information is estimated from.
        rows: Rows of each of them.
        online: Whether it is online EWC, 0 or 1.
        decay: What is left of earlier importances at each stage's end, in [0, 1].
    """

    term, factor = "ewc", 0.5

    def __init__(
        self,
        *,
        weight: float = 10000.0,
        batches: int = 32,
        rows: int = 32,
        online: int = 0,
        decay: float = 1.0,
    ) -> None:
        super().__init__(weight=checked("ewc.weight", weight))
        self.batches = checked("ewc.batches", batches)
        self.rows = checked("ewc.rows", rows)
        self.online = bool(checked("ewc.online", online))
        self.decay = checked("ewc.decay", decay)

    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Add the stage's parabola to those before it."""
        if not self.weight:
            return
        values = dict(named_parameters(strategy.space))
        for name, fisher in self.fisher(strategy).items():
            value = values[name].detach()
            before = self.decay * self._importance.get(name, torch.zeros_like(fisher))
            centre = value if self.online else self._centre.get(name, value)
            total = before + fisher
            share = before / total.clamp(min=torch.finfo().tiny)
            self._importance[name] = total
            self._centre[name] = torch.lerp(value, centre, share)

    def fisher(self, learner: Learner) -> dict[str, Tensor]:
        """Diagonal Fisher information of the stage's contrast at the present weights, by name."""
        pairs = learner.stage_experience().pairs

        def measure(batch: Batch, embedded: Mapping[str, Embedded]) -> Tensor | None:
            terms = contrast(learner.space, batch, embedded, pairs, Part(0, len(batch)))
            return torch.stack(list(terms.values())).sum() if terms else None

        sums = {name: torch.zeros_like(value) for name, value in trainable(learner.space).items()}
        for found, size in gradients(learner, measure, batches=self.batches, rows=self.rows):
            for name, gradient in found.items():
                sums[name] += gradient.square() * size
        return {name: value / self.batches for name, value in sums.items()}
