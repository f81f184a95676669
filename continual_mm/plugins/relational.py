"""Relational distillation: how alike remembered items are within a modality must not change."""

from typing import Any

from continual_mm.learning.learner import Learner
from continual_mm.losses.distillation import relational_distance
from continual_mm.plugins.registry import checked
from continual_mm.plugins.teachers import Distilled


class Relational(Distilled):
    r"""Mean squared change of the similarities among the remembered rows of each old modality.

    .. math::
        \frac1{n (n-1)} \sum_{i \ne j} (z_i^\top z_j - t_i^\top t_j)^2

    with z, (n, D), the unit embeddings and t those of the last stage's end (Park et al. 2019,
    arXiv 1904.05068; :func:`~continual_mm.losses.distillation.relational_distance`). A rotation of
    a modality changes nothing, so two modalities may rotate apart and lose each other; what
    :class:`~continual_mm.plugins.transport.Transport` and
    :class:`~continual_mm.plugins.row_kl.RowKL` keep lies between modalities.

    Args:
        weight: Weight of the change, mean over modalities.
        rows: Remembered rows in each batch; all that there are, if fewer.
    """

    def __init__(self, *, weight: float = 100.0, rows: int = 128) -> None:
        super().__init__(
            weight=checked("relational.weight", weight), rows=checked("relational.rows", rows)
        )

    def before_backward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Add the changes, one term for each modality."""
        seen = self.compared(strategy)
        seen = {name: each for name, each in seen.items() if each.rows.shape[0] > 1}
        for name, each in seen.items():
            change = relational_distance(each.new, each.old)
            strategy.add_term(f"relational/{name}", change, weight=self.weight / len(seen))
