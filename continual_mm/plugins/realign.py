"""Realign: weights are merged with those before the stage, then trained to align again."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from continual_mm.data.batch import Batch, join
from continual_mm.learning.guard import Guard
from continual_mm.learning.learner import Learner
from continual_mm.learning.loader import Order, StepLoader
from continual_mm.learning.objective import Part, Terms
from continual_mm.learning.optimisation import adam, seed_torch, update
from continual_mm.plugins.interpolate import move_back, numbers
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.recollection import required_memory
from continual_mm.plugins.registry import checked
from continual_mm.space.naming import named_parameters
from continual_mm.system.seeds import seed_for


class Realign(Plugin):
    """Merge, then realign: MERA of Zhang et al. (arXiv 2503.07663), carried over to a space.

    At the end of a stage old weights become ``(1 - a) w_new + a w_old``, as by
    :class:`~continual_mm.plugins.interpolate.Interpolate`. A merged tower quite fits neither its
    old partners nor the new one, so some optimiser steps follow in which all towers learn: MCN's
    losses on the stage's items and, with equal weight, on remembered rows with the pairs of their
    own stage. These steps have their own optimiser and seeds. The centroids stay as merged. Other
    plugins add no terms, but those that correct updates correct these too.

    Args:
        towards_old: a, in [0, 1]: 0 keeps the new weights, 1 the old ones.
        steps: Optimiser steps of the second part.
        rate: Their learning rate as a part of the stage's, in [0, 1].
        rows: Remembered rows in each of these steps; all that there are, if fewer.
    """

    needs_memory = True
    saved = ("old",)

    def __init__(
        self, *, towards_old: float = 0.5, steps: int = 100, rate: float = 0.1, rows: int = 128
    ) -> None:
        super().__init__()
        self.towards_old = checked("realign.towards_old", towards_old)
        self.steps = checked("realign.steps", steps)
        self.rate = checked("realign.rate", rate)
        self.rows = checked("realign.rows", rows)
        self._old: dict[str, Tensor] = {}

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Copy the weights before the space grows; refuse a run without a memory."""
        required_memory(strategy, self)
        if strategy.space.modalities:
            self._old = numbers(strategy.space)

    def after_training_epoch(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Merge and realign, before other plugins make the finished space their teacher."""
        if not self._old or not strategy.training.steps:
            return
        move_back(strategy.space, self._old, self.towards_old)
        with _kept(strategy):
            self._realign(strategy)

    def _realign(self, learner: Learner) -> None:
        stage = learner.stage
        seed = seed_for(learner.space.seed, "realign", stage)
        experience = learner.stage_experience()
        shown = StepLoader(experience.items, experience.rows_per_step, steps=self.steps, seed=seed)
        remembered = required_memory(learner, self).batch
        kept = 0 if remembered is None else len(remembered)
        recalled = Order(kept, self.rows, seed=seed_for(seed, "memory"))
        optimizer, guard = self._optimizer(learner), Guard()
        for step, block in enumerate(shown):
            seed_torch(seed_for(seed, "step", step), learner.device)
            # These steps come behind the stage's own, so none hides the same features as another.
            learner.space.dropout.set_step(stage, learner.step + step)
            past = [] if remembered is None else [remembered.select(recalled[step])]
            terms = _terms(learner, [block, *past])
            _update(learner, optimizer, terms, guard, step=learner.step + step)
            for plugin in learner.plugins:
                if isinstance(plugin, Plugin):
                    plugin.after_update(learner)
        guard.check(stage, learner.space, learner.training)
        self.extra_steps += self.steps

    def _optimizer(self, learner: Learner) -> Optimizer:
        """Adam without state, at a part of the stage's rate."""
        parameters = dict(named_parameters(learner.space))
        scales = {value: learner.lr_scale.get(name, 1.0) for name, value in parameters.items()}
        trained = [value for value in parameters.values() if value.requires_grad]
        trained = trained or [learner.space.log_scale]
        return adam(trained, self.rate * learner.training.learning_rate, scales)

    def state(self) -> dict[str, Tensor]:
        """The weights before the stage, by name, and the steps made in earlier stages."""
        return {**super().state(), "steps": torch.tensor(self.extra_steps)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore :meth:`state`."""
        super().load_state(state)
        self.extra_steps = int(state["steps"])


def _terms(learner: Learner, parts: Sequence[Batch]) -> Terms:
    """The objective on current rows and on remembered ones, if any, embedded together."""
    batch, current = join(parts).to(learner.device, non_blocking=True), len(parts[0])
    learner.mbatch = batch
    with learner.precision():
        learner.mb_output = learner.model(batch)
    terms = learner.objective(Part(0, current))
    past = learner.objective(Part(current, len(batch)))
    return terms | {f"realign/{name}": value for name, value in past.items()}


def _update(
    learner: Learner, optimizer: Optimizer, terms: Terms, guard: Guard, *, step: int
) -> None:
    """One step, as the learner makes its own: clipped, and stopped by numbers not finite."""
    optimizer.zero_grad()
    loss = sum(terms.values(), start=torch.zeros((), device=learner.device))
    if not loss.requires_grad:
        return
    torch.autograd.backward(learner.scaler.scale(loss))
    update(
        optimizer,
        learner.scaler,
        clip_norm=learner.training.clip_norm,
        look=lambda gradient: guard.watch(
            learner.stage, step, terms | gradient, learner.space, learner.training
        ),
    )
    optimizer.zero_grad()


@contextmanager
def _kept(learner: Learner) -> Iterator[None]:
    """Leave the learner's batch and its centroids as they were."""
    kept = learner.mbatch, learner.mb_output, learner.clusters.fixed
    learner.clusters.fixed = True
    try:
        yield
    finally:
        learner.mbatch, learner.mb_output, learner.clusters.fixed = kept
