"""Row-KL: which item of another modality a remembered item is nearest to must not change."""

from typing import Any

from continual_mm.learning.learner import Learner
from continual_mm.learning.objective import right_answers
from continual_mm.losses.distillation import row_divergence
from continual_mm.plugins.registry import checked
from continual_mm.plugins.teachers import Distilled, compared_pairs


class RowKL(Distilled):
    r"""Learning without forgetting for contrastive models, as in CTP and Mod-X.

    .. math::
        \frac1n \sum_i KL(\mathrm{softmax}(T_{i\cdot} / \tau) \,\|\,
        \mathrm{softmax}(S_{i\cdot} / \tau)) + \text{the same of } T^\top, S^\top

    for every pair of old modalities that remembered rows have, with S and T, (n, n), the present
    and the teacher's similarities (Zhu et al. 2023, arXiv 2308.07146; Ni et al. 2023,
    arXiv 2305.07437; :func:`~continual_mm.losses.distillation.row_divergence`). Where transport
    keeps one plan in which all items compete, here each query chooses for itself.

    Args:
        weight: Weight of the divergence, mean over pairs, in nats.
        temperature: :math:`\tau`, which divides cosines before the softmax.
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
        super().__init__(weight=checked("row_kl.weight", weight), rows=checked("row_kl.rows", rows))
        self.temperature = checked("row_kl.temperature", temperature)
        self.right_only = bool(checked("row_kl.right_only", right_only))

    def before_backward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Add the divergences, one term for each pair."""
        pairs = list(compared_pairs(self.compared(strategy)))
        for pair, first, second in pairs:
            divergence = row_divergence(
                first.new @ second.new.T,
                first.old @ second.old.T,
                temperature=self.temperature,
                right_only=self.right_only,
                right=right_answers(strategy.batch, pair, first.rows + strategy.remembered.start),
            )
            strategy.add_term(f"row_kl/{pair}", divergence, weight=self.weight / len(pairs))
