"""Watch: warns of a stage that pulls old pairs apart, or ends it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from continual_mm.data.batch import Batch, Items, Share
from continual_mm.definitions.modality import Pair
from continual_mm.learning.learner import Learner
from continual_mm.losses.contrastive import unit
from continual_mm.losses.transport import Potentials, log_transport_plan, plan_distillation_from
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.registry import checked
from continual_mm.space.space import JointSpace

EPSILON = 0.07  # entropic temperature of the plans, as that of the recorded drift
TOLERANCE, ITERATIONS = 1e-4, 500


class Watch(Plugin):
    """An early warning: the drift of old pairs' transport plans on validation items.

    Every few steps some validation items are embedded, and the entropic plan of each old pair is
    compared with that of the stage's beginning: KL divergence in nats, which grows before recall
    falls. Nothing is trained on these items. Where the largest drift passes a threshold, that is
    recorded, shown by ``continual-mm status``, and with ``stop_at`` the stage ends there.

    Args:
        warn_at: Drift in nats from which a warning is recorded, once in a stage; 0 for none.
        stop_at: Drift in nats at which the stage is ended; 0 for never.
        every: Steps between two looks.
        items: Validation items of each old pair, at most.
    """

    saved = ("old",)

    def __init__(
        self, *, warn_at: float = 0.1, stop_at: float = 0.0, every: int = 20, items: int = 96
    ) -> None:
        super().__init__()
        self.warn_at = checked("watch.warn_at", warn_at)
        self.stop_at = checked("watch.stop_at", stop_at)
        self.every = checked("watch.every", every)
        self.items = checked("watch.items", items)
        self.ended = False
        self._old: dict[str, Tensor] = {}  # pair/modality -> (n, D) embeddings at the beginning
        self._batches: dict[Pair, Batch] = {}
        self._plans: dict[Pair, tuple[Tensor, Potentials]] = {}
        self._warned = -1  # step of the stage at which it warned
        self._notes: list[str] = []
        self._told: list[str] = []
        self._drift: dict[str, Tensor] = {}

    @property
    def choices(self) -> Sequence[Mapping[str, Any]]:
        """What was noticed in the stage that has just ended."""
        return [{"note": note} for note in self._told]

    @property
    def curves(self) -> Mapping[str, Tensor]:
        """The drift of each old pair at the last look."""
        return self._drift

    def before_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Keep what old pairs are, before the first step of the stage."""
        self._told, self._drift, self._plans = [], {}, {}
        old = {
            p for stage, pairs in strategy.pairs.items() if stage < strategy.stage for p in pairs
        }
        wanted = sorted(old) if self.warn_at or self.stop_at else []
        self._batches = {pair: batch for pair in wanted if (batch := self._chosen(strategy, pair))}
        self._old = {
            f"{pair}/{name}": rows
            for pair, batch in self._batches.items()
            for name, rows in _embedded(strategy, pair, batch).items()
        }

    def after_training_iteration(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Look, every so many steps but the last one."""
        done = strategy.step + 1  # the step is counted after this
        if not self._batches or self.ended or done % self.every or done >= strategy.training.steps:
            return
        drift = {pair: self._drifted(strategy, pair) for pair in self._batches}
        self._drift = {f"watch/{pair}": torch.tensor(value) for pair, value in drift.items()}
        worst = max(drift, key=lambda pair: drift[pair])
        moved = f"step {done}: the plan of {worst} has drifted by {drift[worst]:.3f} nats"
        if self.stop_at and drift[worst] >= self.stop_at:
            self._notes.append(f"{moved}; the stage was ended there (stop_at {self.stop_at:g})")
            self.ended = True
            strategy.stop_training()
        elif self.warn_at and drift[worst] >= self.warn_at and self._warned < 0:
            self._notes.append(f"{moved}, at {self.warn_at:g} of which old recall falls")
            self._warned = done

    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Tell what was noticed, and begin anew."""
        self._told, self._notes = self._notes, []
        self._old, self._batches, self._plans = {}, {}, {}
        self._warned, self.ended = -1, False

    def state(self) -> dict[str, Tensor]:
        """Inside a stage: old embeddings, and what was noticed."""
        noticed = "\n".join(self._notes).encode()
        kept = super().state()
        if noticed:
            kept["notes"] = torch.tensor(list(noticed), dtype=torch.uint8)
        if self.ended or self._warned >= 0:
            kept["noticed"] = torch.tensor([int(self.ended), self._warned])
        return kept

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore :meth:`state`; plans are solved anew from it."""
        super().load_state(state)
        self._plans = {}
        text = bytes(state["notes"].tolist()).decode() if "notes" in state else ""
        self._notes = text.split("\n") if text else []
        ended, warned = state["noticed"].tolist() if "noticed" in state else (0, -1)
        self.ended, self._warned = bool(ended), warned

    def _chosen(self, learner: Learner, pair: Pair) -> Batch | None:
        """Evenly spaced validation items that have both modalities, on the device."""
        items = learner.validation_items
        dataset = items.dataset
        every = torch.cat([share.rows for share in items.shares])
        present = [torch.from_numpy(dataset.columns[n].present) for n in (pair.first, pair.second)]
        rows = every[present[0][every] & present[1][every]]
        if len(rows) < 2:
            return None
        count = min(len(rows), self.items)
        some = rows[torch.arange(count) * len(rows) // count]
        share = Share(0, some, (pair.first, pair.second))
        chosen = Items(dataset, (share,)).block((torch.arange(count),))
        return chosen.to(learner.device)

    def _drifted(self, learner: Learner, pair: Pair) -> float:
        """Nats by which the pair's plan differs from that of the stage's beginning."""
        if pair not in self._plans:
            before = {name: self._old[f"{pair}/{name}"] for name in (pair.first, pair.second)}
            self._plans[pair] = log_transport_plan(
                _cost(before, pair), epsilon=EPSILON, tolerance=TOLERANCE, iterations=ITERATIONS
            )
        plan, potentials = self._plans[pair]
        now = _embedded(learner, pair, self._batches[pair])
        divergence, _ = plan_distillation_from(
            plan,
            _cost(now, pair),
            epsilon=EPSILON,
            potentials=potentials,
            tolerance=TOLERANCE,
            iterations=ITERATIONS,
        )
        return float(divergence)


def _cost(embeddings: Mapping[str, Tensor], pair: Pair) -> Tensor:
    return 1 - embeddings[pair.first] @ embeddings[pair.second].T


@torch.no_grad()
def _embedded(learner: Learner, pair: Pair, batch: Batch) -> dict[str, Tensor]:
    """Unit vectors of the pair's two modalities, as the pair is scored."""
    with _evaluating(learner.space):
        space = learner.space
        views = space(batch.features, batch.lengths)
        own = learner.own_towers.get(pair, {})
        found = {}
        for name in (pair.first, pair.second):
            part = views[name]
            if name in own:
                lengths = batch.lengths.get(name)
                part = space.embed(name, own[name], batch.features[name], lengths, hiding=False)
            found[name] = unit(space.vectors(name, part).float())
    return found


@contextmanager
def _evaluating(space: JointSpace) -> Iterator[None]:
    """The space in evaluation mode; afterwards every module is as it was."""
    before = [(module, module.training) for module in space.modules()]
    space.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
