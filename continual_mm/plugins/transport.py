"""Optimal-transport alignment: transport plans between remembered items must not change."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from continual_mm.definitions.modality import Pair
from continual_mm.learning.learner import Learner
from continual_mm.learning.objective import right_answers
from continual_mm.losses.distillation import squared_distance
from continual_mm.losses.transport import Potentials, log_transport_plan, plan_distillation_from
from continual_mm.losses.trust import right_items, right_plan, trusted_plan
from continual_mm.losses.unbalanced import log_unbalanced_plan, unbalanced_distillation_from
from continual_mm.plugins.plugin import extracted
from continual_mm.plugins.recollection import required_memory
from continual_mm.plugins.registry import checked
from continual_mm.plugins.teachers import Compared, Distilled, compared_pairs

Pairs = tuple[Pair, ...]
Solver = Callable[..., tuple[Tensor, Potentials]]

# Coarse, for speed. Against converged plans of 128 items the gradient is off by less than 0.1 % at
# a divergence of 0.2 nats and more, by 4 to 17 % around 0.005 to 0.001, and by a quarter and more
# below 1e-4, where there is hardly anything to correct.
TOLERANCE = 1e-4
ITERATIONS = 100


@dataclass(slots=True)
class KeptPlan:
    """The teacher's plans of some pairs of the same n items.

    ``log_plan`` is (B, n, n), a plan for each pair; the next solution starts from ``potentials``;
    ``offset``, (B,), is the divergence of the teacher itself from a plan that is not wholly its
    own; ``right`` positions of the items that are compared, None for all.
    """

    log_plan: Tensor
    potentials: Potentials
    offset: Tensor | None = None
    right: Tensor | None = None


class KeptPlans:
    """Plans of pairs of the same items, solved together; see :class:`Transport` for the options."""

    def __init__(
        self, *, epsilon: float, trust: float, unbalanced: float, right_only: bool
    ) -> None:
        self._trust = trust
        self._right_only = right_only
        self._solve: Solver = partial(log_transport_plan, epsilon=epsilon)
        self._distil: Solver = partial(plan_distillation_from, epsilon=epsilon)
        if unbalanced:
            self._solve = partial(log_unbalanced_plan, epsilon=epsilon, rho=unbalanced)
            self._distil = partial(unbalanced_distillation_from, epsilon=epsilon, rho=unbalanced)
        self._plans: dict[Pairs, KeptPlan] = {}

    def __contains__(self, pairs: object) -> bool:
        return pairs in self._plans

    @property
    def trust_in_partners(self) -> bool:
        """Whether it matters which items answer one another."""
        return self._right_only or self._trust < 1

    def learn(self, pairs: Pairs, cost: Tensor, answers: Sequence[Tensor | None] = ()) -> None:
        """Keep the plans of the teacher's costs, (B, n, n).

        ``answers`` are of each pair (n, n), which items answer one another; None where each itself.
        """
        plan, guess = self._solve(cost)
        known, right = _stacked(answers, cost), None
        if self._right_only:
            # Such pairs come alone, for each has items of its own.
            (mask,) = right_items(plan, known)
            right = mask.nonzero().squeeze(1)
            cost = _among(cost, right)
            known = None if known is None else _among(known, right)
            guess = Potentials(*(part[:, right] for part in guess))
            plan, guess = self._solve(cost) if right.shape[0] else (cost, guess)
        if known is not None and self._trust < 1 and cost.numel():
            partners = torch.stack([right_plan(each) for each in known])
            mixed = trusted_plan(plan, self._trust, partners)
        else:
            mixed = trusted_plan(plan, self._trust)
        kept = self._plans[pairs] = KeptPlan(mixed, guess)
        if self._trust < 1:
            kept.offset = self.divergence(pairs, cost)
        kept.right = right

    def divergence(self, pairs: Pairs, cost: Tensor) -> Tensor:
        """(B,) divergences of the costs' plans, (B, n, n), from those that are kept, in nats.

        An item that is left out has no divergence.
        """
        kept, count = self._plans[pairs], cost.shape[-1]
        if kept.right is not None:
            cost = _among(cost, kept.right)
        found = cost.new_zeros(cost.shape[0])
        if cost.numel():
            found, kept.potentials = self._distil(
                kept.log_plan,
                cost,
                potentials=kept.potentials,
                tolerance=TOLERANCE,
                iterations=ITERATIONS,
            )
        if kept.offset is not None:
            found = found - kept.offset
        return found if cost.shape[-1] == count else found * (cost.shape[-1] / count)

    def forget(self) -> None:
        """Keep nothing: there is a new teacher."""
        self._plans = {}

    def state(self) -> dict[str, Tensor]:
        """The plans and the last potentials, on which the last bits of the next solution depend."""
        state = {}
        for pairs, kept in self._plans.items():
            group = ",".join(map(str, pairs))
            state[f"plan/{group}"] = kept.log_plan
            state[f"rows/{group}"], state[f"columns/{group}"] = kept.potentials
            if kept.offset is not None:
                state[f"lacks/{group}"] = kept.offset
            if kept.right is not None:
                state[f"right/{group}"] = kept.right
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore :meth:`state`; other entries are ignored."""
        self.forget()
        for group, plan in extracted("plan", state).items():
            pairs = tuple(Pair.parse(text) for text in group.split(","))
            potentials = Potentials(state[f"rows/{group}"], state[f"columns/{group}"])
            offset, right = (state.get(f"{kind}/{group}") for kind in ("lacks", "right"))
            self._plans[pairs] = KeptPlan(plan, potentials, offset, right)


def _stacked(answers: Sequence[Tensor | None], cost: Tensor) -> Tensor | None:
    """(B, n, n) what answers what, of every pair; None where each itself alone, in all of them."""
    if all(each is None for each in answers):
        return None
    itself = torch.eye(cost.shape[-1], dtype=torch.bool)
    return torch.stack([itself if each is None else each for each in answers]).to(cost.device)


def _among(cost: Tensor, items: Tensor) -> Tensor:
    """The costs among some items, in both modalities."""
    if items.shape[0] == cost.shape[-1]:
        return cost  # ascending and complete: nothing to gather
    return cost[:, items][:, :, items]


STEP = 0.2  # largest change of the multiplier's logarithm in a step
RESPONSE = 3.0  # largest logarithm of the factor by which a step's own drift bends the weight
REACH = 1e3  # how many times larger or smaller than at a budget of 0 the weight may become


class Multiplier:
    """A fixed weight, or with a budget (an allowed drift) what a method of multipliers finds.

    The drift of a stage's first step counts as none: there the space is its teacher still, and what
    is seen is what dropout does. Nothing here waits for the device. ``value`` is the weight of the
    last step; a scalar tensor once it was found.
    """

    def __init__(self, weight: float, *, budget: float) -> None:
        self._scale = weight
        self._budget = budget
        self._found: Tensor | None = None
        self._first: Tensor | None = None
        self.value: float | Tensor = weight

    def weigh(self, drifts: Iterable[Tensor]) -> float | Tensor:
        """The weight of a step with these drifts, of which the mean counts."""
        if not self._budget:
            return self.value
        drift = torch.stack([each.detach() for each in drifts]).mean()
        least, most = self._scale / REACH, self._scale * REACH
        if self._found is None or self._first is None:
            self._found, self._first = drift.new_tensor(least), drift
        excess = ((drift - self._first) / self._budget - 1).clamp(-1, 1)
        # Dual ascent, on the logarithm: which weight a budget needs differs by orders of magnitude
        # between data sets. The lower bound keeps a drift that begins at 0 from driving it so far
        # down that it comes back late; the upper one is for budgets that no weight can keep.
        self._found = (self._found * (STEP * excess).exp()).clamp(least, most)
        # By itself it lags behind the drift and overshoots. This damps, as the quadratic part of an
        # augmented Lagrangian does. Until a budget is first exceeded there is no force at all.
        weight = self._found * (RESPONSE * excess).exp()
        self.value = torch.where(self._found > 1.001 * least, weight, 0.0)
        return self.value

    def restart(self) -> None:
        """Begin anew, for a teacher that has not been left yet."""
        self._found = self._first = None
        self.value = self._scale

    def state(self) -> dict[str, Tensor]:
        """What was found, if anything."""
        if self._found is None or self._first is None:
            return {}
        return {"multiplier": self._found, "first drift": self._first}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore :meth:`state`."""
        self._found, self._first = state.get("multiplier"), state.get("first drift")


class Transport(Distilled):
    r"""Distils the transport plan between old modalities (``losses.transport``).

    .. math::
        w \Big( \frac1{|\mathcal P|} \sum_{(a, b) \in \mathcal P} KL(P^{old}_{ab} \| P_{ab})
        + \gamma \, \frac1M \sum_m \frac1n \sum_i \lVert z^m_i - t^m_i \rVert^2 \Big)

    over all pairs of modalities that the step's remembered rows have; :math:`P_{ab}`, (n, n), is
    the entropic plan of the cost one minus the cosine, z are present and t the teacher's unit
    embeddings, taken at the last stage's end. A plan does not notice a rotation that old modalities
    share, while whatever stays put does (a frozen tower, a third modality); the second sum, the
    gauge term, keeps the space from turning. All pairs are solved in one batch.

    Args:
        weight: w, of the divergence in nats.
        epsilon: Entropic temperature of the plans, in units of one minus the cosine.
        gauge: :math:`\gamma`, weight of the gauge term beside the divergence.
        rows: n, remembered rows in each batch; all that there are, if fewer. A plan depends on how
            many rows it has, so this should not change within a run.
        trust: Share of the teacher's plan in what is distilled, in [0, 1]; the rest is the plan of
            the right partners (:func:`~continual_mm.losses.trust.trusted_plan`). The teacher's own
            divergence from it is subtracted, so that the term is 0 at the teacher, and negative
            where old pairs improve.
        budget: Drift that is allowed, mean divergence over pairs in nats beyond what dropout does.
            The weight is then found (:class:`Multiplier`), within a thousandth and a thousand times
            ``weight``, and is 0 until the budget is exceeded for the first time. 0 leaves the
            weight fixed.
        unbalanced: Price of mass that a plan does not deliver, in units of one minus the cosine
            (:mod:`~continual_mm.losses.unbalanced`); 0 makes it deliver all.
        right_only: 1 compares plans among those items alone that find each other, in both
            directions, in the teacher's plan (:func:`~continual_mm.losses.trust.right_items`); the
            others have no divergence, so that each of those left counts as before. 0 keeps all.
    """

    def __init__(
        self,
        *,
        weight: float = 3.0,
        epsilon: float = 0.07,
        gauge: float = 0.1,
        rows: int = 128,
        trust: float = 1.0,
        budget: float = 0.0,
        unbalanced: float = 0.0,
        right_only: int = 0,
    ) -> None:
        super().__init__(
            weight=checked("transport.weight", weight), rows=checked("transport.rows", rows)
        )
        self.epsilon = checked("transport.epsilon", epsilon)
        self.gauge = checked("transport.gauge", gauge)
        self.right_only = bool(checked("transport.right_only", right_only))
        self._multiplier = Multiplier(self.weight, budget=checked("transport.budget", budget))
        self._plans = KeptPlans(
            epsilon=self.epsilon,
            trust=checked("transport.trust", trust),
            unbalanced=checked("transport.unbalanced", unbalanced),
            right_only=self.right_only,
        )

    @property
    def curves(self) -> dict[str, Tensor]:
        """The weight that the budget has led to."""
        weight = self._multiplier.value
        return {"transport/weight": weight} if isinstance(weight, Tensor) else {}

    def before_backward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Add the divergence and the gauge term of the remembered rows."""
        compared = self.compared(strategy)
        if not compared:
            return
        divergences = self._divergences(strategy, compared)
        if not divergences:
            return
        weight = self._multiplier.weigh(divergences.values())
        for pair, value in divergences.items():
            strategy.add_term(f"transport/{pair}", value, weight=weight / len(divergences))
        if self.gauge:
            # In the batch's order of modalities, on which the last bits of the mean depend.
            seen = [compared[name] for name in strategy.embedded if name in compared]
            moved = torch.stack([squared_distance(each.new, each.old) for each in seen])
            strategy.add_term("gauge", moved.mean(), weight=weight * self.gauge)

    def _divergences(
        self, learner: Learner, compared: Mapping[str, Compared]
    ) -> dict[Pair, Tensor]:
        """KL of every pair; pairs with the same items are solved together."""
        memory, answers = required_memory(learner, self), dict[Pair, Tensor | None]()
        groups: dict[object, list[tuple[Pair, Tensor, Tensor]]] = {}
        for pair, first, second in compared_pairs(compared):
            teacher, cost = 1 - first.old @ second.old.T, 1 - first.new @ second.new.T
            key = pair if self.right_only else cost.shape
            if self._plans.trust_in_partners:
                rows = first.rows + learner.remembered.start
                answers[pair] = right_answers(learner.batch, pair, rows)
            groups.setdefault(key, []).append((pair, teacher, cost))
        same_items = len(memory.drawn) == len(memory.memory)  # as in the step before
        found: dict[Pair, Tensor] = {}
        for group in groups.values():
            pairs = tuple(pair for pair, _, _ in group)
            if not same_items or pairs not in self._plans:
                teachers = torch.stack([teacher for _, teacher, _ in group])
                self._plans.learn(pairs, teachers, [answers.get(pair) for pair in pairs])
            divergence = self._plans.divergence(pairs, torch.stack([cost for _, _, cost in group]))
            found |= dict(zip(pairs, divergence.unbind(), strict=True))
        return found

    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Make the finished space the next stage's teacher."""
        super().after_training_exp(strategy)
        self._plans.forget()
        self._multiplier.restart()

    def state(self) -> dict[str, Tensor]:
        """The teacher's embeddings and, inside a stage, its plans and the weight found."""
        return {**super().state(), **self._plans.state(), **self._multiplier.state()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore :meth:`state`."""
        super().load_state(state)
        self._plans.load_state(state)
        self._multiplier.load_state(state)
