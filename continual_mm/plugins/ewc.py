"""Elastic weight consolidation on the contrastive objective, keyed by parameter name."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from continual_mm.learning.learner import Learner
from continual_mm.learning.loader import StepLoader
from continual_mm.learning.objective import Part, contrast
from continual_mm.plugins.plugin import Plugin, at_least_zero
from continual_mm.space.naming import named_parameters, trainable


class EWC(Plugin):
    """Quadratic pull towards the weights of finished stages (Kirkpatrick et al. 2017).

    ``sum_s sum_i F_s,i (w_i - w_s,i)^2 / 2`` over the stages s, with F_s the diagonal Fisher
    information of the stage's contrastive objective. Since a sum of parabolas is a parabola, one
    importance and one centre per parameter hold it exactly, however many stages there are.

    The contrast couples the rows of a batch, so there is no gradient per item: F is the mean of the
    squared gradients of small batches, times their size.

    Args:
        weight: Weight of the penalty.
        batches: Batches that the Fisher information is estimated from.
        rows: Rows of each of them.
    """

    def __init__(self, *, weight: float = 10000.0, batches: int = 32, rows: int = 32) -> None:
        super().__init__()
        self.weight = at_least_zero("ewc.weight", weight)
        if batches < 1 or rows < 2:
            raise ValueError(f"ewc.batches = {batches}, ewc.rows = {rows}: give at least 1 and 2")
        self.batches = batches
        self.rows = rows
        self._importance: dict[str, Tensor] = {}
        self._centre: dict[str, Tensor] = {}

    def before_backward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Add the penalty."""
        if not self.weight or not self._importance:
            return
        penalties = [
            (self._importance[name] * (value - self._centre[name]).square()).sum()
            for name, value in named_parameters(strategy.space)
            if name in self._importance and value.requires_grad
        ]
        if penalties:
            strategy.add_term("ewc", torch.stack(penalties).sum() / 2, weight=self.weight)

    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Add the stage's parabola to those before it."""
        if not self.weight:
            return
        values = dict(named_parameters(strategy.space))
        for name, fisher in self.fisher(strategy).items():
            value = values[name].detach()
            before = self._importance.get(name, torch.zeros_like(fisher))
            centre = self._centre.get(name, value)
            total = before + fisher
            moved = (before * centre + fisher * value) / total.clamp(min=torch.finfo().tiny)
            self._importance[name] = total
            self._centre[name] = torch.where(total > 0, moved, value).clone()

    def fisher(self, learner: Learner) -> dict[str, Tensor]:
        """Diagonal Fisher information of the stage's contrast at the present weights, by name."""
        experience = learner.stage_experience()
        loader = StepLoader(
            experience.items,
            tuple(self.rows for _ in experience.items.shares),
            steps=self.batches,
            seed=experience.stage,
        )
        parameters = trainable(learner.space)
        learner.space.eval()  # the information is that of the weights as they will be used
        sums = {name: torch.zeros_like(value) for name, value in parameters.items()}
        for block in loader:
            batch = block.to(learner.device)
            with learner.precision():
                embedded = learner.model(batch)
            whole = Part(0, len(batch))
            terms = contrast(learner.space, batch, embedded, experience.pairs, whole)
            if not terms:
                break
            loss = torch.stack(list(terms.values())).sum()
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(sums, gradients, strict=True):
                if gradient is not None:
                    sums[name] += gradient.square() * len(batch)
        learner.space.train()
        return {name: value / self.batches for name, value in sums.items()}

    def state(self) -> dict[str, Tensor]:
        """Importances and centres by parameter name."""
        return {
            **{f"importance/{name}": value for name, value in self._importance.items()},
            **{f"centre/{name}": value for name, value in self._centre.items()},
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`state`."""
        for key, value in state.items():
            kind, _, name = key.partition("/")
            (self._importance if kind == "importance" else self._centre)[name] = value
