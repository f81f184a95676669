"""Warm-up: the new tower learns alone against frozen old ones, then all learn together."""

from typing import Any

from torch.nn import Parameter

from continual_mm.learning.learner import Learner
from continual_mm.plugins.freeze import hold, quieten, release
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.registry import checked


class Warmup(Plugin):
    """First fit what is new, then tune everything: LP-FT of Kumar et al. (arXiv 2202.10054).

    A new tower's first gradients say where random weights point, and they distort old towers. From
    the second stage on these are therefore frozen, as :class:`Freeze` does it, for the first share
    of the stage's steps. Then they learn as well, with the moments they had. Whether a step belongs
    to the share follows from its number alone, so a run may go on at any step.

    Args:
        share: Part of the stage's steps that the new tower learns alone, in [0, 1].
    """

    def __init__(self, *, share: float = 0.5) -> None:
        super().__init__()
        self.share = checked("warmup.share", share)
        self._held: tuple[Parameter, ...] = ()
        self._fixed = False

    def after_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Freeze what is there before anything arrives, save what another plugin has frozen.

        The callback comes after the one that :class:`Freeze` uses, whatever the order of the
        plugins: what that holds for good is not in turn released here.
        """
        if self.share and strategy.space.modalities:
            self._held = hold(strategy.space)
            self._fixed = strategy.clusters.fixed
            strategy.clusters.fixed = True

    def before_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Put what is held into evaluation mode."""
        if self._held:
            quieten(strategy.space)

    def before_training_iteration(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Release what is held at the first step behind the share."""
        if self._held and strategy.step >= self.share * strategy.training.steps:
            self._release(strategy)
            strategy.make_optimizer()

    def after_training_epoch(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Release what is held still: plugins that look at the finished stage find it as ever."""
        self._release(strategy)

    def _release(self, strategy: Learner) -> None:
        if not self._held:
            return
        release(strategy.space, self._held)
        strategy.clusters.fixed = self._fixed
        self._held = ()
