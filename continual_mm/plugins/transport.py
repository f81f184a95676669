"""Optimal-transport alignment: who matches whom among remembered items must not change."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from continual_mm.data.batch import Batch
from continual_mm.learning.learner import Learner
from continual_mm.losses.distillation import squared_distance
from continual_mm.modality import Pair
from continual_mm.plugins.kept_plans import KeptPlans, Manner
from continual_mm.plugins.multiplier import Multiplier
from continual_mm.plugins.plugin import Plugin, at_least_zero, contents, extracted, fraction
from continual_mm.plugins.recollection import Recollection
from continual_mm.plugins.teacher import Compared, compared_pairs
from continual_mm.space.space import Embedded


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
            The weight is then found (:class:`~continual_mm.plugins.multiplier.Multiplier`), within
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
