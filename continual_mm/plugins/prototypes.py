"""Prototypes: old modalities keep their places among the centroids; no item is remembered."""

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
    """Distils the assignment of current rows to the centroids of the last stage's end.

    At a stage's end the centroids are kept, and the share h of the stage's items that lies nearest
    to each. In the next stage a frozen copy of the old towers embeds the batch's current rows of
    old modalities; transport to the centroids under the masses h says how each row belongs to them,
    and the learning towers must say the same (``losses.prototypes``). A batch has other masses than
    its stage had, the more so in another domain: h keeps the teacher from crowding into few
    centroids, where uniform masses would be wrong for a long tail.

    The masses are those of the last stage alone, for nothing older is there to be counted. In the
    first stage of a run that starts from another's space there are none yet, and nothing is held.

    Args:
        weight: Weight of the divergence, mean over modalities, in nats.
        epsilon: Entropic temperature, in units of the cosine.
        items: Items that the masses are counted from.
    """

    def __init__(self, *, weight: float = 1.0, epsilon: float = 0.07, items: int = 2048) -> None:
        super().__init__()
        self.weight = checked("prototypes.weight", weight)
        self.epsilon = checked("prototypes.epsilon", epsilon)
        self.items = checked("prototypes.items", items)
        self._towers = OldTowers()
        self._kept: dict[str, Tensor] = {}

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Copy the old towers before anything arrives.

        Raises:
            ValueError: If the space has no centroids.
        """
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
        """Keep the centroids and count who lies where."""
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
        return {**self._kept, **self._towers.state()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore :meth:`state`."""
        self._kept = {key: state[key] for key in ("centroids", "masses") if key in state}
        self._towers.load_state(state)
