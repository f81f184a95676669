"""Distill: embeddings of old modalities stay near those that a teacher gives."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from continual_mm.learning.learner import Learner
from continual_mm.losses.distillation import squared_distance
from continual_mm.plugins.old_towers import OldTowers, rows_inside
from continual_mm.plugins.plugin import Plugin, at_least_zero
from continual_mm.plugins.recollection import Recollection


class Distill(Plugin):
    """Squared distance to the embeddings of the last stage's end, from the second stage on.

    ``mean_i |z_i - t_i|^2`` over the rows i of a modality, with z its unit embeddings and t the
    teacher's, then the mean over modalities. For unit vectors that is twice one minus the cosine.

    On remembered rows the teacher's embeddings are those that the finished space gave to the
    memory's items. On current rows a frozen copy of the old towers is the teacher; it sees what the
    new towers see before features are hidden from them, and is kept only if ``current`` asks for
    it. What a row has of modalities that are new has no teacher.

    Args:
        weight: Weight of the distance on remembered rows.
        current: Weight of the distance on current rows.
        rows: Remembered rows in each batch; all that there are, if fewer.
    """

    def __init__(self, *, weight: float = 10.0, current: float = 0.0, rows: int = 128) -> None:
        super().__init__()
        self.weight = at_least_zero("distill.weight", weight)
        self.current = at_least_zero("distill.current", current)
        if rows < 2:
            raise ValueError(f"distill.rows = {rows}: give at least 2")
        self.recalled_rows = rows if self.weight else 0
        self._teacher: dict[str, Tensor] = {}
        self._towers = OldTowers()

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Copy the old towers before anything arrives.

        Raises:
            ValueError: If there is neither a memory nor a weight on current rows, so that nothing
                would be distilled.
        """
        if not self.current and _recollection(strategy) is None:
            raise ValueError(
                "distill needs past items: give the run a memory, [memory] items = 128, or distil "
                "on the current ones with distill.current = 1"
            )
        if self.current:
            self._towers.keep(strategy.space)

    def before_backward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Add the distances, one term for each modality."""
        remembered = self._remembered(strategy) if self.weight else {}
        for name, distance in remembered.items():
            strategy.add_term(f"distill/{name}", distance, weight=self.weight / len(remembered))
        current = self._current(strategy) if self.current else {}
        for name, distance in current.items():
            weight = self.current / len(current)
            strategy.add_term(f"distill/current/{name}", distance, weight=weight)

    def _remembered(self, learner: Learner) -> dict[str, Tensor]:
        """Modality -> distance of the remembered rows to the teacher's embeddings."""
        source, part = _recollection(learner), learner.remembered
        if source is None or source.batch is None:
            return {}
        found = {}
        for name in self._teacher.keys() & learner.batch.rows.keys():
            inside = rows_inside(learner.batch, name, part)
            if inside.shape[0]:
                self._teacher[name] = self._teacher[name].to(learner.device)
                drawn = source.drawn[learner.batch.rows[name][inside] - part.start]
                where = source.batch.positions(name, drawn).to(learner.device)
                new = learner.embedded[name].direction[inside.to(learner.device)]
                found[name] = squared_distance(new, self._teacher[name][where])
        return dict(sorted(found.items()))

    def _current(self, learner: Learner) -> dict[str, Tensor]:
        """Modality -> distance of the current rows to what the old towers make of them."""
        return {
            name: squared_distance(learner.embedded[name].direction[where], teacher)
            for name, (where, teacher) in self._towers.embed(learner).items()
        }

    @torch.no_grad()
    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Let the finished space embed what is remembered."""
        source = _recollection(strategy)
        if not self.weight or source is None or source.batch is None:
            return
        remembered = source.batch.to(strategy.device)
        strategy.space.eval()
        with strategy.precision():
            embedded = strategy.space(remembered.features, remembered.lengths)
        strategy.space.train()
        self._teacher = {name: part.direction for name, part in embedded.items()}

    def state(self) -> dict[str, Tensor]:
        """The teacher's embeddings, and the weights of its towers by name."""
        teacher = {f"teacher/{name}": value for name, value in self._teacher.items()}
        return {**teacher, **self._towers.state()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`state`."""
        teacher = {key: value for key, value in state.items() if key.startswith("teacher/")}
        self._teacher = {key.removeprefix("teacher/"): value for key, value in teacher.items()}
        self._towers.load_state(state)


def _recollection(learner: Learner) -> Recollection | None:
    """The learner's recollection, if the run has a memory."""
    return next((plugin for plugin in learner.plugins if isinstance(plugin, Recollection)), None)
