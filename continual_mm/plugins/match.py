"""Match: new pairs are trained by their transport plan as well as by their contrast."""

from typing import Any

import torch
from torch import Tensor

from continual_mm.learning.growth import of_pair
from continual_mm.learning.learner import Learner
from continual_mm.learning.objective import gathered, paired_rows, right_answers, stages_of
from continual_mm.losses.transport import plan_distillation_from
from continual_mm.losses.trust import right_plan, trusted_plan
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.registry import checked
from continual_mm.plugins.transport import ITERATIONS, TOLERANCE


class Match(Plugin):
    r"""Adds the divergence of each pair's transport plan from the right matching.

    .. math::
        KL\Big(\frac{I}{n} \,\Big\|\, P\Big), \qquad
        P = \arg\min_{P \in U(1/n, 1/n)} \langle P, C\rangle - \varepsilon H(P), \quad
        C_{ij} = 1 - a_i^\top b_j

    for the n current rows of a pair, with a and b, (n, D), their unit embeddings; rows that answer
    one another, such as captions of one recording, share their mass. In the softmax of
    the contrast each query chooses for itself, and a few items may be the answer to many queries.
    In a plan all rows and columns have the mass 1/n, so what one item takes the others cannot have.
    This is inverse optimal transport (Shi et al. 2023, "Understanding and generalizing contrastive
    learning from the inverse optimal transport perspective").

    It concerns what is learned, not what is kept, and begins with the second stage: until then all
    strategies train alike. Joint training matches all pairs, and so does cumulative training from
    its second stage on. Where a pair has towers of its own, these are trained.

    Args:
        weight: Weight of the divergence, in nats, for each pair.
        epsilon: Entropic temperature of the plan, in units of one minus the cosine.
    """

    for_bounds = True

    def __init__(self, *, weight: float = 3.0, epsilon: float = 0.05) -> None:
        super().__init__()
        self.weight = checked("match.weight", weight)
        self.epsilon = checked("match.epsilon", epsilon)
        self._on = False

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Begin with the second stage; joint training has its pairs in the first experience."""
        later = max(strategy.stage_experience().pairs, default=0) > 0
        self._on = bool(self.weight) and later

    def before_backward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Add the divergence of every pair that the current rows train."""
        if not self._on:
            return
        for pair, stages in stages_of(strategy.pairs).items():
            rows = paired_rows(strategy.batch, pair, stages, strategy.current)
            if rows.shape[0] < 2:  # a row without others says nothing
                continue
            seen = of_pair(strategy.embedded, pair)
            first, second = (
                gathered(seen[name].direction, strategy.batch.positions(name, rows))
                for name in (pair.first, pair.second)
            )
            right = right_answers(strategy.batch, pair, rows)
            value = matching_divergence(1 - first @ second.T, epsilon=self.epsilon, right=right)
            strategy.add_term(f"match/{pair}", value, weight=self.weight)


def matching_divergence(cost: Tensor, *, epsilon: float, right: Tensor | None = None) -> Tensor:
    """Divergence of the right matching from the transport plan of a cost, in nats.

    Args:
        cost: (n, n) of items of which row i and column i belong together.
        epsilon: Entropic temperature of the plan.
        right: (n, n) which items answer one another, if others than each itself do: what is right
            is then shared among them.
    """
    if right is None:
        matching = trusted_plan(torch.zeros_like(cost), 0.0)
    else:
        matching = right_plan(right.to(cost.device))
    divergence, _ = plan_distillation_from(
        matching, cost, epsilon=epsilon, tolerance=TOLERANCE, iterations=ITERATIONS
    )
    return divergence
