"""Freeze: what has been learned stays bit for bit as it is; only what arrives is trained."""

from typing import Any

from continual_mm.learning.learner import Learner
from continual_mm.plugins.freezing import hold, quieten
from continual_mm.plugins.plugin import Plugin


class Freeze(Plugin):
    """No forgetting by construction, and no plasticity of the old towers either.

    From the second stage on everything in the space that was there before takes no gradient, stays
    in evaluation mode, is left out of the optimiser, and the centroids are not refitted. Old towers
    serve as a fixed target for the new one.
    """

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Freeze what is there before anything arrives."""
        if strategy.space.modalities:
            hold(strategy.space)
            strategy.clusters.fixed = True

    def before_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Put the frozen modules into evaluation mode, which ``train()`` has just undone."""
        quieten(strategy.space)
