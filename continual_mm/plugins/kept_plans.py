"""The teacher's transport plans of old pairs, and how far the learner's have come from them."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from continual_mm.losses.transport import (
    Potentials,
    log_transport_plan,
    plan_distillation_from,
)
from continual_mm.losses.trust import right_items, trusted_plan
from continual_mm.losses.unbalanced import log_unbalanced_plan, unbalanced_distillation_from
from continual_mm.modality import Pair

Pairs = tuple[Pair, ...]

# Coarse, for speed. Against converged plans of 128 items the gradient is off by less than 0.1 % at
# a divergence of 0.2 nats and more, by 4 to 17 % around 0.005 to 0.001, and by a quarter and more
# below 1e-4, where there is hardly anything to correct.
TOLERANCE = 1e-4
ITERATIONS = 100


@dataclass(frozen=True, slots=True)
class Manner:
    """How plans are made and compared; see :class:`~continual_mm.plugins.transport.Transport`."""

    epsilon: float
    trust: float
    unbalanced: float
    right_only: bool


class KeptPlans:
    """Plans of pairs of the same items, solved together.

    Args:
        manner: How plans are made.
    """

    def __init__(self, manner: Manner) -> None:
        self._manner = manner
        self._plans: dict[Pairs, Tensor] = {}
        self._guesses: dict[Pairs, Potentials] = {}
        self._lacks: dict[Pairs, Tensor] = {}
        self._right: dict[Pairs, Tensor] = {}

    def __contains__(self, pairs: object) -> bool:
        return pairs in self._plans

    def learn(self, pairs: Pairs, cost: Tensor) -> None:
        """Take the plans of the teacher's costs, (B, n, n), as what should stay."""
        plan, guess = self._solved(cost)
        if self._manner.right_only:
            (mask,) = right_items(plan)  # such pairs come alone, for each has items of its own
            right = self._right[pairs] = mask.nonzero().squeeze(1)
            cost = _among(cost, right)
            guess = Potentials(*(part[:, right] for part in guess))
            plan, guess = self._solved(cost) if right.shape[0] else (cost, guess)
        self._plans[pairs], self._guesses[pairs] = trusted_plan(plan, self._manner.trust), guess
        if self._manner.trust < 1:
            self._lacks[pairs] = self._distilled(pairs, cost)

    def divergence(self, pairs: Pairs, cost: Tensor) -> Tensor:
        """(B,) divergences of the costs' plans, (B, n, n), from those that should stay, in nats.

        Of the right items alone, it counts as much as these are of all: an item left out has no
        divergence.
        """
        count = cost.shape[-1]
        if pairs in self._right:
            cost = _among(cost, self._right[pairs])
        found = self._distilled(pairs, cost)
        if pairs in self._lacks:
            found = found - self._lacks[pairs]
        return found if cost.shape[-1] == count else found * (cost.shape[-1] / count)

    def _solved(self, cost: Tensor) -> tuple[Tensor, Potentials]:
        manner = self._manner
        if manner.unbalanced:
            return log_unbalanced_plan(cost, epsilon=manner.epsilon, rho=manner.unbalanced)
        return log_transport_plan(cost, epsilon=manner.epsilon)

    def _distilled(self, pairs: Pairs, cost: Tensor) -> Tensor:
        if not cost.numel():
            return cost.new_zeros(cost.shape[0])
        manner, plan, guess = self._manner, self._plans[pairs], self._guesses[pairs]
        if manner.unbalanced:
            found, self._guesses[pairs] = unbalanced_distillation_from(
                plan,
                cost,
                epsilon=manner.epsilon,
                rho=manner.unbalanced,
                potentials=guess,
                tolerance=TOLERANCE,
                iterations=ITERATIONS,
            )
        else:
            found, self._guesses[pairs] = plan_distillation_from(
                plan,
                cost,
                epsilon=manner.epsilon,
                potentials=guess,
                tolerance=TOLERANCE,
                iterations=ITERATIONS,
            )
        return found

    def forget(self) -> None:
        """Keep nothing: there is a new teacher."""
        self._plans, self._guesses, self._lacks, self._right = {}, {}, {}, {}

    def state(self) -> dict[str, Tensor]:
        """The plans, and the potentials found last.

        The potentials decide how close the next solution comes to convergence, hence its last bits.
        """
        state = {}
        for pairs, plan in self._plans.items():
            group = ",".join(map(str, pairs))
            state[f"plan/{group}"] = plan
            state[f"rows/{group}"], state[f"columns/{group}"] = self._guesses[pairs]
            if pairs in self._lacks:
                state[f"lacks/{group}"] = self._lacks[pairs]
            if pairs in self._right:
                state[f"right/{group}"] = self._right[pairs]
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`state`; what is not of plans is passed over."""
        self.forget()
        for key, value in state.items():
            kind, _, group = key.partition("/")
            if kind != "plan":
                continue
            pairs = tuple(Pair.parse(text) for text in group.split(","))
            self._plans[pairs] = value
            self._guesses[pairs] = Potentials(state[f"rows/{group}"], state[f"columns/{group}"])
            if f"lacks/{group}" in state:
                self._lacks[pairs] = state[f"lacks/{group}"]
            if f"right/{group}" in state:
                self._right[pairs] = state[f"right/{group}"]


def _among(cost: Tensor, items: Tensor) -> Tensor:
    """The costs among some items, in both modalities."""
    if items.shape[0] == cost.shape[-1]:
        return cost  # ascending and complete: nothing to gather
    return cost[:, items][:, :, items]
