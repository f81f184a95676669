"""Distill: embeddings of old modalities stay near those of a teacher."""

from typing import Any

from continual_mm.learning.learner import Learner
from continual_mm.losses.distillation import squared_distance
from continual_mm.plugins.recollection import recollection
from continual_mm.plugins.registry import checked
from continual_mm.plugins.teachers import Distilled, OldTowers


class Distill(Distilled):
    """Squared distance to the embeddings of the last stage's end, from the second stage on.

    ``mean_i |z_i - t_i|^2`` over the rows i of a modality, with z its unit embeddings and t the
    teacher's, then the mean over modalities. For unit vectors that is twice one minus the cosine.

    On remembered rows the teacher's embeddings are those that the finished space gave to the
    memory's items. On current rows a frozen copy of the old towers is the teacher, kept only if
    ``current`` is positive; it sees features before dropout. New modalities have no teacher.

    Args:
        weight: Weight of the distance on remembered rows.
        current: Weight of the distance on current rows.
        rows: Remembered rows in each batch; all that there are, if fewer.
    """

    needs_memory = False
    saved = ("teacher", "towers")

    def __init__(self, *, weight: float = 10.0, current: float = 0.0, rows: int = 128) -> None:
        super().__init__(
            weight=checked("distill.weight", weight), rows=checked("distill.rows", rows)
        )
        self.current = checked("distill.current", current)
        self._towers = OldTowers()

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Copy the old towers before the space grows; refuse a run that would distil nothing."""
        if not self.current and recollection(strategy) is None:
            raise ValueError(
                "Distill needs past items: give the run a memory, [memory] items = 128, or distil "
                "on the current ones with distill.current = 1"
            )
        if self.current:
            self._towers.keep(strategy.space)

    def before_backward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Add the distances, one term for each modality."""
        remembered = self.compared(strategy)
        for name, seen in remembered.items():
            distance = squared_distance(seen.new, seen.old)
            strategy.add_term(f"distill/{name}", distance, weight=self.weight / len(remembered))
        current = self._towers.embed(strategy)
        for name, (where, teacher) in current.items():
            distance = squared_distance(strategy.embedded[name].direction[where], teacher)
            weight = self.current / len(current)
            strategy.add_term(f"distill/current/{name}", distance, weight=weight)
