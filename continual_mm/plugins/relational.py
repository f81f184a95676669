"""Relational distillation: how alike remembered items are within a modality must not change."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from continual_mm.learning.learner import Learner
from continual_mm.losses.distillation import relational_distance
from continual_mm.plugins.plugin import Plugin, at_least_zero
from continual_mm.plugins.teachers import Teacher, enough_rows, need_memory


class Relational(Plugin):
    """Mean squared change of the similarities among the remembered rows of each old modality.

    It holds the shape of each modality's cloud (:func:`relational_distance`) and lets it turn. Two
    modalities that turn apart lose each other and are not held by this term alone; what
    :class:`Transport` and :class:`RowKL` keep lies between modalities.

    Args:
        weight: Weight of the change, mean over modalities.
        rows: Remembered rows in each batch; all that there are, if fewer.
    """

    def __init__(self, *, weight: float = 100.0, rows: int = 128) -> None:
        super().__init__()
        self.weight = at_least_zero("relational.weight", weight)
        self.recalled_rows = enough_rows("relational", rows) if self.weight else 0
        self._teacher = Teacher()

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Refuse a run without a memory."""
        if self.weight:
            need_memory(strategy, "relational")

    def before_backward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Add the changes, one term for each modality."""
        if not self.weight:
            return
        seen = self._teacher.compare(strategy)
        seen = {name: each for name, each in seen.items() if each.rows.shape[0] > 1}
        for name, each in seen.items():
            change = relational_distance(each.new, each.old)
            strategy.add_term(f"relational/{name}", change, weight=self.weight / len(seen))

    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Take the finished space for the next stage's teacher."""
        if self.weight:
            self._teacher.embed(strategy)

    def state(self) -> dict[str, Tensor]:
        """The teacher's embeddings."""
        return self._teacher.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`state`."""
        self._teacher.load_state(state)
