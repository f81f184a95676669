"""Warm-up: the new tower learns alone against frozen old ones, then all learn together."""

from typing import Any

from torch.nn import Parameter

from continual_mm.learning.learner import Learner
from continual_mm.plugins.freeze import eval_frozen, freeze, unfreeze
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.registry import checked


class Warmup(Plugin):
    """First fit what is new, then tune everything: LP-FT of Kumar et al. (arXiv 2202.10054).

    The first gradients come through random weights of the new tower and distort old towers. From
    the second stage on these are therefore frozen, as by
    :class:`~continual_mm.plugins.freeze.Freeze`, for the first share of the stage's steps. Then
    they learn too, with the optimiser state that they had. Whether a step belongs to the share
    follows from its number alone, so a run can be resumed at any step.

    Args:
        share: Part of the stage's steps in which the new tower learns alone, in [0, 1].
    """

    def __init__(self, *, share: float = 0.5) -> None:
        super().__init__()
        self.share = checked("warmup.share", share)
        self._frozen: tuple[Parameter, ...] = ()
        self._fixed = False

    def after_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Freeze the space before it grows, except what other plugins have frozen by now."""
        if self.share and strategy.space.modalities:
            self._frozen = freeze(strategy.space.parameters())
            self._fixed = strategy.clusters.fixed
            strategy.clusters.fixed = True

    def before_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Set frozen modules to evaluation mode."""
        if self._frozen:
            eval_frozen(strategy.space)

    def before_training_iteration(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Unfreeze at the first step behind the share."""
        if self._frozen and strategy.step >= self.share * strategy.training.steps:
            self._unfreeze(strategy)
            strategy.make_optimizer()

    def after_training_epoch(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Unfreeze at the stage's end, before other plugins use the finished stage."""
        self._unfreeze(strategy)

    def _unfreeze(self, strategy: Learner) -> None:
        if not self._frozen:
            return
        unfreeze(strategy.space, self._frozen)
        strategy.clusters.fixed = self._fixed
        self._frozen = ()
