"""Prototypes: old modalities keep their assignment to the centroids; no item is remembered."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from continual_mm.learning.learner import Learner
from continual_mm.losses.distillation import prototype_divergence, prototype_potentials
from continual_mm.plugins.plugin import Plugin, stage_batches
from continual_mm.plugins.registry import checked
from continual_mm.plugins.teachers import OldTowers

ROWS = 128


class Prototypes(Plugin):
    r"""Distils the assignment of current rows to the centroids of the last stage's end.

    .. math::
        \frac1n \sum_i KL(Q_i \| Q'_i), \qquad
        Q_i = \mathrm{softmax}((t_i C^\top + g) / \varepsilon), \quad
        Q'_i = \mathrm{softmax}((z_i C^\top + g) / \varepsilon)

    with z, (n, D), the embeddings of the current rows of an old modality, t those of a frozen copy
    of the old towers, C, (K, D), the centroids of the last stage's end and g, (K,), the potentials
    with which t fills the masses h: the share of the stage's items nearest to each centroid. After
    SwAV (Caron et al. 2020, arXiv 2006.09882). A batch may be of another domain than h: the masses
    keep the teacher from using few centroids only, and suit a long tail, which uniform ones do not.

    The masses are those of the last stage alone, for no older items can be counted. In the first
    stage of a run that starts from another's space there are none yet, and no term is added.

    Args:
        weight: Weight of the divergence, mean over modalities, in nats.
        epsilon: Entropic temperature, in units of the cosine.
        items: Items that the masses are counted from.
    """

    saved = ("towers",)

    def __init__(self, *, weight: float = 1.0, epsilon: float = 0.07, items: int = 2048) -> None:
        super().__init__()
        self.weight = checked("prototypes.weight", weight)
        self.epsilon = checked("prototypes.epsilon", epsilon)
        self.items = checked("prototypes.items", items)
        self._towers = OldTowers()
        self._kept: dict[str, Tensor] = {}

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Copy the old towers before the space grows; refuse a space without centroids."""
        if self.weight and not strategy.clusters.active:
            raise ValueError("prototypes needs centroids: give the space some, [space] clusters")
        if self._kept:
            self._towers.keep(strategy.space)

    def before_backward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Add the divergences, one term for each old modality in the batch."""
        if not self._kept:
            return
        centroids, masses = self._kept["centroids"], self._kept["masses"]
        old = self._towers.embed(strategy)
        for name, (where, teacher) in old.items():
            biases = prototype_potentials(teacher, centroids, masses, epsilon=self.epsilon)
            new = strategy.embedded[name].direction[where]
            value = prototype_divergence(new, teacher, centroids, biases, epsilon=self.epsilon)
            strategy.add_term(f"prototypes/{name}", value, weight=self.weight / len(old))

    @torch.no_grad()
    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Keep the centroids and count the items nearest to each."""
        if not self.weight:
            return
        centroids = normalize(strategy.space.centroids, dim=1)
        # One more for each: a prototype that happens to be empty has no logarithm of its mass.
        counts = torch.ones_like(centroids[:, 0])
        for batch in stage_batches(strategy, rows=ROWS, batches=-(-self.items // ROWS)):
            with strategy.precision():
                embedded = strategy.space(batch.features, batch.lengths)
            parts = {name: part.embedding for name, part in embedded.items()}
            rows = {name: batch.rows[name] for name in parts}
            joint = strategy.clusters.joint(parts, rows, len(batch))
            nearest = (joint @ centroids.T).argmax(1)
            counts.index_add_(0, nearest, torch.ones_like(joint[:, 0]))
        self._kept = {"centroids": centroids, "masses": counts / counts.sum()}

    def state(self) -> dict[str, Tensor]:
        """Centroids, masses and the weights of the old towers."""
        return {**self._kept, **super().state()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore :meth:`state`."""
        self._kept = {key: state[key] for key in ("centroids", "masses") if key in state}
        super().load_state(state)
