"""Distill: embeddings of old modalities stay near those that a teacher gives."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from continual_mm.learning.learner import Learner
from continual_mm.losses.distillation import squared_distance
from continual_mm.plugins.plugin import Plugin, at_least_zero
from continual_mm.plugins.teachers import OldTowers, Teacher, recollection


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
        self._teacher = Teacher()
        self._towers = OldTowers()

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Copy the old towers before anything arrives.

        Raises:
            ValueError: If there is neither a memory nor a weight on current rows, so that nothing
                would be distilled.
        """
        if not self.current and recollection(strategy) is None:
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
        seen = self._teacher.compare(learner)
        return {name: squared_distance(each.new, each.old) for name, each in seen.items()}

    def _current(self, learner: Learner) -> dict[str, Tensor]:
        """Modality -> distance of the current rows to what the old towers make of them."""
        return {
            name: squared_distance(learner.embedded[name].direction[where], teacher)
            for name, (where, teacher) in self._towers.embed(learner).items()
        }

    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Let the finished space embed what is remembered."""
        if self.weight:
            self._teacher.embed(strategy)

    def state(self) -> dict[str, Tensor]:
        """The teacher's embeddings, and the weights of its towers by name."""
        return {**self._teacher.state(), **self._towers.state()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`state`."""
        self._teacher.load_state(state)
        self._towers.load_state(state)
