"""Row-KL: whom a remembered item would choose in the other modality must not change."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from continual_mm.learning.learner import Learner
from continual_mm.losses.distillation import row_divergence
from continual_mm.plugins.plugin import Plugin, at_least_zero
from continual_mm.plugins.teachers import Teacher, compared_pairs, enough_rows, need_memory


class RowKL(Plugin):
    """Learning without forgetting for contrastive models, as in CTP and Mod-X.

    KL of old from new row-softmaxes of the similarities between two modalities, in both directions
    (:func:`row_divergence`), for every pair of old modalities that remembered rows have. Where
    transport keeps one plan in which all items compete, here each query chooses for itself.

    Args:
        weight: Weight of the divergence, mean over pairs, in nats.
        temperature: Divides cosines before the softmax.
        right_only: 1 leaves out queries that the teacher answers wrongly, as Mod-X does; 0 keeps
            all.
        rows: Remembered rows in each batch; all that there are, if fewer.
    """

    def __init__(
        self,
        *,
        weight: float = 1.0,
        temperature: float = 0.07,
        right_only: int = 1,
        rows: int = 128,
    ) -> None:
        super().__init__()
        self.weight = at_least_zero("row_kl.weight", weight)
        if not 0 < temperature < float("inf"):
            raise ValueError(f"row_kl.temperature = {temperature}: give a positive number")
        if right_only not in (0, 1):
            raise ValueError(f"row_kl.right_only = {right_only}: give 0 or 1")
        self.temperature = temperature
        self.right_only = bool(right_only)
        self.recalled_rows = enough_rows("row_kl", rows) if self.weight else 0
        self._teacher = Teacher()

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Refuse a run without a memory."""
        if self.weight:
            need_memory(strategy, "row_kl")

    def before_backward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Add the divergences, one term for each pair."""
        if not self.weight:
            return
        pairs = list(compared_pairs(self._teacher.compare(strategy)))
        for pair, first, second in pairs:
            divergence = row_divergence(
                first.new @ second.new.T,
                first.old @ second.old.T,
                temperature=self.temperature,
                right_only=self.right_only,
            )
            strategy.add_term(f"row_kl/{pair}", divergence, weight=self.weight / len(pairs))

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
