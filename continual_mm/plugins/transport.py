"""Optimal-transport alignment: who matches whom among remembered items must not change."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from continual_mm.data.batch import Batch
from continual_mm.definitions.modality import Pair
from continual_mm.learning.learner import Learner
from continual_mm.losses.distillation import squared_distance
from continual_mm.losses.transport import Potentials, log_transport_plan, plan_distillation_from
from continual_mm.losses.trust import right_items, trusted_plan
from continual_mm.losses.unbalanced import log_unbalanced_plan, unbalanced_distillation_from
from continual_mm.plugins.plugin import Plugin, at_least_zero, contents, extracted, fraction
from continual_mm.plugins.recollection import Recollection
from continual_mm.plugins.teachers import Compared, compared_pairs
from continual_mm.space.space import Embedded

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


PACE = 0.2
"""Largest change of the multiplier's logarithm in a step."""
RESPONSE = 3.0
"""Largest logarithm of the factor by which a step's own drift bends the weight."""
REACH = 1e3
"""How many times larger or smaller than at a budget of 0 the weight may become."""


@torch.no_grad()
def ascended(multiplier: Tensor, excess: Tensor, *, scale: float) -> Tensor:
    """The multiplier after a step of dual ascent on ``excess <= 0``.

    The step is made on the logarithm: which weight a budget needs differs by orders of magnitude
    between data sets, and a linear step that fits one of them is far too small or too large for
    the next. The lower bound keeps a drift that begins at 0 from driving the multiplier so far down
    that it comes back late; the upper one is for budgets that no weight can keep.

    >>> float(ascended(torch.tensor(2.0), torch.tensor(0.0), scale=3.0))
    2.0
    """
    return (multiplier * (PACE * excess).exp()).clamp(scale / REACH, scale * REACH)


@torch.no_grad()
def force(multiplier: Tensor, excess: Tensor, *, scale: float) -> Tensor:
    """The weight in a step: the multiplier, larger above the budget and smaller below it.

    As the quadratic part of an augmented Lagrangian does, this damps: the multiplier alone lags
    behind the drift and overshoots. At its lower bound, where it is until a budget is exceeded for
    the first time, there is no force at all.

    >>> float(force(torch.tensor(0.003), torch.tensor(-0.5), scale=3.0))
    0.0
    """
    weight = multiplier * (RESPONSE * excess).exp()
    return torch.where(multiplier > 1.001 * scale / REACH, weight, 0.0)


class Multiplier:
    """A fixed weight, or with a budget the one that a method of multipliers finds.

    The drift of a stage's first step counts as none: there the space is its teacher still, and what
    is seen is what dropout does. Nothing here waits for the device.

    Args:
        weight: The fixed weight; with a budget, the scale of what is found.
        budget: The drift allowed; 0 fixes the weight.

    Attributes:
        value: The weight of the last step; a scalar tensor once it was found.
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
        if self._found is None or self._first is None:
            self._found, self._first = drift.new_tensor(self._scale / REACH), drift
        excess = ((drift - self._first) / self._budget - 1).clamp(-1, 1)
        self._found = ascended(self._found, excess, scale=self._scale)
        self.value = force(self._found, excess, scale=self._scale)
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
        """Go on from :meth:`state`."""
        self._found, self._first = state.get("multiplier"), state.get("first drift")


class Transport(Plugin):
    """Distils the old model's transport plan of every old pair (``losses.transport``).

    At a stage's end the finished space embeds the remembered items once more: it is the teacher of
    the next stage. In each step KL(P_old || P_new) of the remembered rows is added for every pair
    of modalities that they have, all pairs in one batched solve. A plan does not notice a rotation
    that old modalities share, while whatever stays put does (a frozen tower, a third modality); the
    gauge, the mean squared distance to the teacher's embeddings, keeps the space from turning.

    Args:
        weight: Weight of the divergence, mean over pairs, in nats.
        epsilon: Entropic temperature of the plans, in units of one minus the cosine.
        gauge: Weight of the gauge term beside the divergence; both are multiplied by ``weight``.
        rows: Remembered rows in each batch; all that there are, if fewer. A plan depends on how
            many rows it has, so this should not change within a run.
        trust: How far the teacher's plans are believed (:func:`~continual_mm.losses.trust`): the
            rest is the plan of the right partners. What the teacher itself lacks in it is taken
            off the divergence, which is therefore 0 at the teacher, and below it where old pairs
            improve.
        budget: Drift that is allowed, mean divergence over pairs in nats beyond what dropout does.
            The weight is then found (:class:`~continual_mm.plugins.transport.Multiplier`), within
            a thousandth and a thousand times ``weight``, and is 0 until the budget is exceeded for
            the first time. 0 leaves the weight where it is.
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
        super().__init__()
        self.weight = at_least_zero("transport.weight", weight)
        self.gauge = at_least_zero("transport.gauge", gauge)
        if not 0 < epsilon < float("inf") or rows < 2:
            problem = f"transport.epsilon = {epsilon}, transport.rows = {rows}"
            raise ValueError(f"{problem}: give a positive number and at least 2")
        if right_only not in (0, 1):
            raise ValueError(f"transport.right_only = {right_only}: give 0 or 1")
        self.epsilon = epsilon
        self.right_only = bool(right_only)
        self._multiplier = Multiplier(self.weight, budget=at_least_zero("transport.budget", budget))
        self.recalled_rows = rows if self.weight else 0
        self._teacher: dict[str, Tensor] = {}
        manner = Manner(
            epsilon=epsilon,
            trust=fraction("transport.trust", trust),
            unbalanced=at_least_zero("transport.unbalanced", unbalanced),
            right_only=self.right_only,
        )
        self._plans = KeptPlans(manner)

    @property
    def nbytes(self) -> int:
        """Bytes of the teacher's embeddings."""
        return sum(tensor.nbytes for tensor in self._teacher.values())

    @property
    def curves(self) -> dict[str, Tensor]:
        """The weight that the budget has led to."""
        weight = self._multiplier.value
        return {"transport/weight": weight} if isinstance(weight, Tensor) else {}

    def before_backward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Add the divergence and the gauge term of the remembered rows."""
        if not self.weight or not self._teacher or not len(strategy.remembered):
            return
        source = recollection(strategy)
        if source.batch is None:
            return
        compared = self._compared(strategy, source)
        divergences = self._divergences(compared, whole=len(source.drawn) == len(source.memory))
        if not divergences:
            return
        weight = self._multiplier.weigh(divergences.values())
        for pair, value in divergences.items():
            strategy.add_term(f"transport/{pair}", value, weight=weight / len(divergences))
        if self.gauge:
            moved = [squared_distance(each.new, each.old) for each in compared.values()]
            strategy.add_term("gauge", torch.stack(moved).mean(), weight=weight * self.gauge)

    def _compared(self, learner: Learner, source: Recollection) -> dict[str, Compared]:
        """Modality -> the remembered rows that have it, as they were and as they are."""
        rows = source.recalled.rows
        return {
            name: Compared(rows[name], self._old(name, source), _last(values, rows[name]))
            for name, values in learner.embedded.items()
            if name in rows and name in self._teacher
        }

    def _old(self, name: str, source: Recollection) -> Tensor:
        """The teacher's embeddings of the remembered rows that have a modality."""
        old = self._teacher[name]
        if source.batch is None or source.recalled is source.batch:
            return old
        chosen = source.drawn[source.recalled.rows[name]]
        return old[source.batch.positions(name, chosen).to(old.device)]

    def _divergences(self, compared: Mapping[str, Compared], *, whole: bool) -> dict[Pair, Tensor]:
        """KL of every pair; pairs with the same items are solved together."""
        groups: dict[object, list[tuple[Pair, Tensor, Tensor]]] = {}
        for pair, first, second in compared_pairs(compared):
            teacher, cost = 1 - first.old @ second.old.T, 1 - first.new @ second.new.T
            key = pair if self.right_only else cost.shape
            groups.setdefault(key, []).append((pair, teacher, cost))
        found: dict[Pair, Tensor] = {}
        for group in groups.values():
            pairs = tuple(pair for pair, _, _ in group)
            if not whole or pairs not in self._plans:
                self._plans.learn(pairs, torch.stack([teacher for _, teacher, _ in group]))
            divergence = self._plans.divergence(pairs, torch.stack([cost for _, _, cost in group]))
            found |= dict(zip(pairs, divergence.unbind(), strict=True))
        return found

    @torch.no_grad()
    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Let the finished space embed what is remembered."""
        if not self.weight:
            return
        remembered = recollection(strategy).batch
        if remembered is None:
            return
        strategy.space.eval()
        embedded = strategy.space(*_on(strategy.device, remembered))
        strategy.space.train()
        self._teacher = {name: part.direction for name, part in embedded.items()}
        self._plans.forget()
        self._multiplier.restart()

    def state(self) -> dict[str, Tensor]:
        """The teacher's embeddings and, inside a stage, its plans and the weight found."""
        teacher = contents("teacher", self._teacher)
        return {**teacher, **self._plans.state(), **self._multiplier.state()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`state`."""
        self._teacher = extracted("teacher", state)
        self._plans.load_state(state)
        self._multiplier.load_state(state)


def recollection(learner: Learner) -> Recollection:
    """The learner's recollection.

    Raises:
        ValueError: If the run has no memory.
    """
    for plugin in learner.plugins:
        if isinstance(plugin, Recollection):
            return plugin
    raise ValueError("transport needs past items: give the run a memory, [memory] items = 128")


def _last(embedded: Embedded, rows: Tensor) -> Tensor:
    """The embeddings of the remembered rows: they stand behind the current ones."""
    return embedded.direction[-rows.shape[0] :]


def _on(device: torch.device, batch: Batch) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    moved = batch.to(device)
    return moved.features, moved.lengths
