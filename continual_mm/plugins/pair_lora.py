"""Pair LoRA: new pairs learn adapters of their own on towers that stay as they are."""

from typing import Any

from continual_mm.learning.learner import Learner
from continual_mm.plugins.adapters import PairAdapters
from continual_mm.plugins.freeze import eval_frozen, freeze
from continual_mm.plugins.registry import checked


class PairLora(PairAdapters):
    """One LoRA per pair: no forgetting by construction, and old towers that can still be fitted.

    From the second stage on the space is frozen as by
    :class:`~continual_mm.plugins.freeze.Freeze`. Each pair that is trained for the first time gets
    low-rank adapters (:func:`~continual_mm.plugins.adapters.adapted`) on those of its two towers
    that are old, and is trained and scored through them. A new tower is trained whole and shared by
    all its pairs. Adapters of finished stages never change again; a pair without any is scored with
    the towers themselves.

    Clustering and reconstruction train adapters too: a modality's terms are the means over the
    pairs that have adapters for it. Labels and centroids come from the towers without adapters.

    Args:
        rank: Rank of an adapter; in a layer with fewer inputs or outputs, their number.
        alpha: Scale of the adapters, relative to their rank.
        rate: Adapters' learning rate in terms of the stage's.
    """

    def __init__(self, *, rank: int = 8, alpha: float = 16.0, rate: float = 3.0) -> None:
        super().__init__(
            rank=checked("pair_lora.rank", rank),
            alpha=checked("pair_lora.alpha", alpha),
            rate=checked("pair_lora.rate", rate),
        )

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Freeze the space before it grows, and adapt its towers for new pairs."""
        if not strategy.space.modalities:
            return
        freeze(strategy.space.parameters())
        strategy.clusters.fixed = True
        self.make_again(strategy)
        self.hold(strategy, frozen=True)
        experience = strategy.stage_experience()
        if not experience.training.steps:
            return
        known = {pair for pairs in strategy.pairs.values() for pair in pairs}
        wanted = {pair for pairs in experience.pairs.values() for pair in pairs}
        for pair in sorted(wanted - known):
            self.adapt(strategy, pair, (pair.first, pair.second))
        self.found(strategy)

    def before_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Set frozen towers to evaluation mode, which ``train()`` has just undone."""
        for parts in (strategy.space.encoders, strategy.space.reconstructions):
            for part in parts.values():
                eval_frozen(part)

    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Freeze the stage's adapters for good, and drop their optimiser state."""
        self.hold(strategy, frozen=True)
