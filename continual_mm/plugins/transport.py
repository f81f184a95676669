"""Optimal-transport alignment: who matches whom among remembered items must not change."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from continual_mm.data.batch import Batch
from continual_mm.learning.learner import Learner
from continual_mm.losses.transport import (
    Potentials,
    log_transport_plan,
    plan_distillation_from,
)
from continual_mm.losses.trust import trusted_plan
from continual_mm.losses.unbalanced import log_unbalanced_plan, unbalanced_distillation_from
from continual_mm.modality import Pair, all_pairs
from continual_mm.plugins.multiplier import Multiplier
from continual_mm.plugins.plugin import Plugin, at_least_zero, fraction
from continual_mm.plugins.recollection import Recollection

# Coarse, for speed. Against converged plans of 128 items the gradient is off by less than 0.1 % at
# a divergence of 0.2 nats and more, by 4 to 17 % around 0.005 to 0.001, and by a quarter and more
# below 1e-4, where there is hardly anything to correct.
TOLERANCE = 1e-4
ITERATIONS = 100


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
        budget: Drift that is allowed, mean divergence over pairs in nats; ``weight`` is then where
            the weight begins in each stage (:class:`~continual_mm.plugins.multiplier.Multiplier`).
            0 leaves it there.
        unbalanced: Price of mass that a plan does not deliver, in units of one minus the cosine
            (:mod:`~continual_mm.losses.unbalanced`); 0 makes it deliver all.
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
    ) -> None:
        super().__init__()
        self.weight = at_least_zero("transport.weight", weight)
        self.gauge = at_least_zero("transport.gauge", gauge)
        if not 0 < epsilon < float("inf") or rows < 2:
            problem = f"transport.epsilon = {epsilon}, transport.rows = {rows}"
            raise ValueError(f"{problem}: give a positive number and at least 2")
        self.epsilon = epsilon
        self.trust = fraction("transport.trust", trust)
        self.unbalanced = at_least_zero("transport.unbalanced", unbalanced)
        self._multiplier = Multiplier(self.weight, budget=at_least_zero("transport.budget", budget))
        self.recalled_rows = rows if self.weight else 0
        self._teacher: dict[str, Tensor] = {}
        self._plans: dict[tuple[Pair, ...], Tensor] = {}
        self._guesses: dict[tuple[Pair, ...], Potentials] = {}
        self._lacks: dict[tuple[Pair, ...], Tensor] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of the teacher's embeddings."""
        return sum(tensor.nbytes for tensor in self._teacher.values())

    def before_backward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Add the divergence and the gauge term of the remembered rows."""
        if not self.weight or not self._teacher or not len(strategy.remembered):
            return
        source = recollection(strategy)
        if source.batch is None:
            return
        new = _remembered(strategy)
        old = {
            name: self._teacher[name][
                source.batch.positions(name, source.drawn[rows]).to(strategy.device)
            ]
            for name, (rows, _) in new.items()
            if name in self._teacher
        }
        new = {name: new[name] for name in old}
        divergences = self._divergences(old, new, whole=len(source.drawn) == len(source.memory))
        if not divergences:
            return
        weight = self._multiplier.value
        for pair, value in divergences.items():
            strategy.add_term(f"transport/{pair}", value, weight=weight / len(divergences))
        if self.gauge:
            moved = [
                (values - old[name]).square().sum(1).mean() for name, (_, values) in new.items()
            ]
            strategy.add_term("gauge", torch.stack(moved).mean(), weight=weight * self.gauge)
        self._multiplier.ascend(divergences.values())

    def _divergences(
        self, old: Mapping[str, Tensor], new: "Mapping[str, tuple[Tensor, Tensor]]", *, whole: bool
    ) -> dict[Pair, Tensor]:
        """KL of every pair; pairs with the same items are solved together."""
        costs: dict[tuple[int, ...], list[tuple[Pair, Tensor, Tensor]]] = {}
        for pair in all_pairs(tuple(new)):
            (rows_a, a), (rows_b, b) = new[pair.first], new[pair.second]
            in_a, in_b = torch.isin(rows_a, rows_b), torch.isin(rows_b, rows_a)
            if int(in_a.sum()) < 2:
                continue
            here_a, here_b = (mask.nonzero().squeeze(1).to(a.device) for mask in (in_a, in_b))
            teacher = 1 - old[pair.first][here_a] @ old[pair.second][here_b].T
            cost = 1 - a[here_a] @ b[here_b].T
            costs.setdefault(tuple(cost.shape), []).append((pair, teacher, cost))
        found: dict[Pair, Tensor] = {}
        for group in costs.values():
            pairs = tuple(pair for pair, _, _ in group)
            if not whole or pairs not in self._plans:
                self._learn(pairs, torch.stack([teacher for _, teacher, _ in group]))
            cost = torch.stack([cost for _, _, cost in group])
            divergence, self._guesses[pairs] = self._distil(pairs, cost)
            if pairs in self._lacks:
                divergence = divergence - self._lacks[pairs]
            found |= dict(zip(pairs, divergence.unbind(), strict=True))
        return found

    def _learn(self, pairs: tuple[Pair, ...], cost: Tensor) -> None:
        """Take the plans of the teacher's costs as what should stay."""
        if self.unbalanced:
            plan, guess = log_unbalanced_plan(cost, epsilon=self.epsilon, rho=self.unbalanced)
        else:
            plan, guess = log_transport_plan(cost, epsilon=self.epsilon)
        self._plans[pairs], self._guesses[pairs] = trusted_plan(plan, self.trust), guess
        if self.trust < 1:
            self._lacks[pairs] = self._distil(pairs, cost)[0]

    def _distil(self, pairs: tuple[Pair, ...], cost: Tensor) -> tuple[Tensor, Potentials]:
        """Divergences of the costs' plans from those that should stay, in nats."""
        plan, guess = self._plans[pairs], self._guesses[pairs]
        if self.unbalanced:
            return unbalanced_distillation_from(
                plan,
                cost,
                epsilon=self.epsilon,
                rho=self.unbalanced,
                potentials=guess,
                tolerance=TOLERANCE,
                iterations=ITERATIONS,
            )
        return plan_distillation_from(
            plan,
            cost,
            epsilon=self.epsilon,
            potentials=guess,
            tolerance=TOLERANCE,
            iterations=ITERATIONS,
        )

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
        self._plans, self._guesses, self._lacks = {}, {}, {}
        self._multiplier.restart()

    def state(self) -> dict[str, Tensor]:
        """The teacher's embeddings and, inside a stage, its plans and the potentials found last.

        The potentials decide how close the next solution comes to convergence, hence its last bits.
        """
        state = {f"teacher/{name}": value for name, value in self._teacher.items()}
        for pairs, plan in self._plans.items():
            group = ",".join(map(str, pairs))
            state[f"plan/{group}"] = plan
            state[f"rows/{group}"], state[f"columns/{group}"] = self._guesses[pairs]
            if pairs in self._lacks:
                state[f"lacks/{group}"] = self._lacks[pairs]
        return {**state, **self._multiplier.state()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`state`."""
        self._teacher, self._plans, self._guesses, self._lacks = {}, {}, {}, {}
        self._multiplier.load_state(state)
        for key, value in state.items():
            kind, _, name = key.partition("/")
            if kind == "teacher":
                self._teacher[name] = value
            elif kind == "plan":
                pairs = tuple(Pair.parse(text) for text in name.split(","))
                self._plans[pairs] = value
                guess = (state[f"rows/{name}"], state[f"columns/{name}"])
                self._guesses[pairs] = Potentials(*guess)
                if f"lacks/{name}" in state:
                    self._lacks[pairs] = state[f"lacks/{name}"]


def recollection(learner: Learner) -> Recollection:
    """The learner's recollection.

    Raises:
        ValueError: If the run has no memory.
    """
    for plugin in learner.plugins:
        if isinstance(plugin, Recollection):
            return plugin
    raise ValueError("transport needs past items: give the run a memory, [memory] items = 128")


def _remembered(learner: Learner) -> dict[str, tuple[Tensor, Tensor]]:
    """Modality -> (places among the remembered rows, their embeddings)."""
    found = {}
    part = learner.remembered
    for name, embedded in learner.embedded.items():
        rows = learner.batch.rows[name]
        inside = ((rows >= part.start) & (rows < part.stop)).nonzero().squeeze(1)
        if inside.shape[0]:
            values = embedded.direction[inside.to(embedded.direction.device)]
            found[name] = (rows[inside] - part.start, values)
    return found


def _on(device: torch.device, batch: Batch) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    moved = batch.to(device)
    return moved.features, moved.lengths
