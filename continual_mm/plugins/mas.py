"""Memory aware synapses: weights that the similarities depend on are pulled back."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from continual_mm.data.batch import Batch
from continual_mm.learning.learner import Learner
from continual_mm.learning.objective import Part, embeddings_at, paired_rows, stages_of
from continual_mm.plugins.importance import WeightPenalty, gradients
from continual_mm.plugins.registry import checked
from continual_mm.space.naming import trainable
from continual_mm.space.space import Embedded


class MAS(WeightPenalty):
    """Memory aware synapses (Aljundi et al. 2018, arXiv 1711.09601), for a space of unit vectors.

    ``sum_i importance_i (w_i - centre_i)^2``, with the centre the weights at the last stage's end
    and importances added up over stages. The paper's importance is the mean absolute gradient of
    the squared norm of a network's output. Of unit embeddings that norm is 1 whatever the weights,
    so its gradient is zero. What retrieval puts out for an item is the row of its similarities to
    the candidates, and the mean squared norm of these rows takes the norm's place
    (:func:`similarity_energy`). Norms of raw embeddings would not do: no similarity depends on
    them.

    The similarities couple the rows of a batch, so there is no gradient per item: importances are
    means of the absolute gradients of small batches. No labels and no loss are looked at.

    Args:
        weight: Weight of the penalty.
        batches: Batches that importances are estimated from.
        rows: Rows of each of them.
    """

    term = "mas"

    def __init__(self, *, weight: float = 300.0, batches: int = 32, rows: int = 32) -> None:
        super().__init__(weight=checked("mas.weight", weight))
        self.batches = checked("mas.batches", batches)
        self.rows = checked("mas.rows", rows)

    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Add the stage's importances to those before it, around the present weights."""
        if not self.weight:
            return
        for name, found in self.importance(strategy).items():
            self._importance[name] = self._importance.get(name, 0.0) + found
        for name, value in trainable(strategy.space).items():
            if name in self._importance:
                self._centre[name] = value.detach().clone()

    def importance(self, learner: Learner) -> dict[str, Tensor]:
        """Mean absolute gradient of the similarities' energy in the stage's pairs, by name."""
        pairs = learner.stage_experience().pairs

        def measure(batch: Batch, embedded: Mapping[str, Embedded]) -> Tensor | None:
            energies = [
                similarity_energy(
                    embeddings_at(batch, embedded, pair.first, rows),
                    embeddings_at(batch, embedded, pair.second, rows),
                )
                for pair, stages in stages_of(pairs).items()
                if len(rows := paired_rows(batch, pair, stages, Part(0, len(batch)))) > 1
            ]
            return torch.stack(energies).sum() if energies else None

        sums: dict[str, Tensor] = {}
        for found, _ in gradients(learner, measure, batches=self.batches, rows=self.rows):
            for name, gradient in found.items():
                sums[name] = sums.get(name, 0.0) + gradient.abs()
        return {name: value / self.batches for name, value in sums.items()}


def similarity_energy(first: Tensor, second: Tensor) -> Tensor:
    r"""Mean over items of the squared norm of their row of similarities, of unit vectors in [0, N].

    .. math::
        \frac1N \lVert A B^\top \rVert_F^2

    with A and B, (N, D), the embeddings of two modalities, row i of one item. Columns give the same
    as rows do, so both directions of retrieval are in it.

    >>> float(similarity_energy(torch.eye(3), torch.eye(3)))
    1.0
    """
    return (first @ second.T).square().sum() / first.shape[0]
