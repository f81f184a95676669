"""Slow: old towers have a fraction of the new tower's learning rate."""

from typing import Any

from continual_mm.learning.learner import Learner
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.registry import checked
from continual_mm.space.naming import named_parameters, owner_of


class Slow(Plugin):
    """A smaller learning rate for old towers.

    Old towers are the encoders and reconstruction heads of modalities of earlier stages, and the
    transformer that modalities may share. The scale of the similarities belongs to all towers and
    keeps the full rate. The length of Adam's steps does not depend on that of the gradient, so a
    smaller weight of the loss would not slow a tower.

    Args:
        ratio: Old towers' learning rate as a part of the stage's, in [0, 1].
    """

    def __init__(self, *, ratio: float = 0.1) -> None:
        super().__init__()
        self.ratio = checked("slow.ratio", ratio)

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Scale the learning rates of all towers before the space grows."""
        for name, _ in named_parameters(strategy.space):
            if owner_of(name) is not None:
                strategy.lr_scale[name] = self.ratio
