"""Partners: current rows keep their plan with stored embeddings of absent modalities."""

from typing import Any

import torch
from torch import Tensor

from continual_mm.learning.learner import Learner
from continual_mm.losses.transport import plan_distillation
from continual_mm.plugins.plugin import Plugin, stage_batches
from continual_mm.plugins.registry import checked
from continual_mm.plugins.teachers import OldTowers
from continual_mm.plugins.transport import ITERATIONS, TOLERANCE


class Partners(Plugin):
    r"""Distils plans between current rows and stored partners; no item is remembered.

    .. math::
        KL(P(1 - T Y^\top) \,\|\, P(1 - Z Y^\top))

    with P the entropic plan of a cost, uniform marginals 1/n and 1/m; Z, (n, D), the embeddings of
    the current rows of an old modality, T, (n, D), those of a frozen copy of the old towers, and Y,
    (m, D), embeddings of another modality, stored at the end of the last stage that had it: points
    of the space, no raw data.

    No row has its own partner among the stored ones, so the plan does not say which items belong
    together; it says how the rows share the partners, all equally popular. Partners do not move, so
    a rotation of the trained tower is noticed and no gauge term is needed. Each stage replaces the
    partners of its own modalities.

    Args:
        weight: Weight of the divergence, mean over pairs, in nats.
        epsilon: Entropic temperature of the plans, in units of one minus the cosine.
        items: Partners stored of each modality.
    """

    saved = ("partners", "towers")

    def __init__(self, *, weight: float = 3.0, epsilon: float = 0.07, items: int = 128) -> None:
        super().__init__()
        self.weight = checked("partners.weight", weight)
        self.epsilon = checked("partners.epsilon", epsilon)
        self.items = checked("partners.items", items)
        self._towers = OldTowers()
        self._partners: dict[str, Tensor] = {}

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Copy the old towers before the space grows."""
        if self._partners:
            self._towers.keep(strategy.space)

    def before_backward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Add the divergences, one term for each modality in the batch and each of its partners."""
        if not self._partners:
            return
        found = {
            f"partners/{name}-{other}": plan_distillation(
                1 - teacher @ partners.T,
                1 - strategy.embedded[name].direction[where] @ partners.T,
                epsilon=self.epsilon,
                tolerance=TOLERANCE,
                iterations=ITERATIONS,
            )
            for name, (where, teacher) in self._towers.embed(strategy).items()
            for other, partners in self._partners.items()
            if other != name
        }
        for term, value in found.items():
            strategy.add_term(term, value, weight=self.weight / len(found))

    @torch.no_grad()
    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Store partners of the stage's modalities."""
        if not self.weight:
            return
        for batch in stage_batches(strategy, rows=self.items):
            with strategy.precision():
                embedded = strategy.space(batch.features, batch.lengths)
            self._partners |= {
                name: part.direction[: self.items].clone() for name, part in embedded.items()
            }
