"""Joint LoRA: the pairs of a stage share towers, and each adapts them; all are trained together."""

from typing import Any

from continual_mm.learning.growth import Views
from continual_mm.learning.learner import Learner
from continual_mm.learning.objective import contrast
from continual_mm.plugins.adapters import PairAdapters
from continual_mm.plugins.registry import checked


class JointLora(PairAdapters):
    r"""One LoRA per pair on towers that all pairs share, trained together.

    .. math::
        L = \sum_p \mathrm{NCE}\big(f_m(x_m; \theta + \phi_p), f_n(x_n; \theta + \phi_p)\big)
        + w_0 \sum_p \mathrm{NCE}\big(f_m(x_m; \theta), f_n(x_n; \theta)\big)

    for pairs p of the modalities m and n, with theta the towers and phi the adapters of a pair
    (:func:`~continual_mm.plugins.adapters.adapted`), on both of its towers. Each pair that a stage
    trains gets some, unless it is alone in the stage and both towers arrive in it: then the towers
    are its own. It is scored through them from then on, so what an item's embedding is depends on
    the pair. Nothing is held: what protects older pairs stands beside it, such as ``[freeze]``,
    with which they stay exactly as they are.

    Clustering and reconstruction train adapters too, as by
    :class:`~continual_mm.plugins.pair_lora.PairLora`.

    Args:
        rank: Rank of an adapter; in a layer with fewer inputs or outputs, their number.
        alpha: Scale of the adapters, relative to their rank.
        rate: Adapters' learning rate in terms of the stage's.
        bare: :math:`w_0`, the weight of the pairs' contrast by the towers without adapters, which
            keeps these usable, for pairs that are not trained and for stages that follow.
    """

    for_bounds = True

    def __init__(
        self, *, rank: int = 8, alpha: float = 16.0, rate: float = 3.0, bare: float = 1.0
    ) -> None:
        super().__init__(
            rank=checked("joint_lora.rank", rank),
            alpha=checked("joint_lora.alpha", alpha),
            rate=checked("joint_lora.rate", rate),
        )
        self.bare = checked("joint_lora.bare", bare)

    def before_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Adapt the towers of the stage's pairs, when all have arrived."""
        experience, space = strategy.stage_experience(), strategy.space
        trained = [value for value in space.parameters() if value.requires_grad]
        self.make_again(strategy)
        pairs = {pair for some in experience.pairs.values() for pair in some}
        added = {modality.name for modality in experience.added}
        alone = len(pairs) == 1 and all({p.first, p.second} <= added for p in pairs)
        if experience.training.steps and not alone:
            for pair in sorted(pairs - strategy.own_towers.keys()):
                self.adapt(strategy, pair, (pair.first, pair.second))
        for value in trained:  # peft takes the weights below an adapter to be frozen
            value.requires_grad_(True)
        self.found(strategy)
        strategy.make_optimizer()

    def before_backward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Add the contrast of adapted pairs by the towers without adapters."""
        if not self.bare:
            return
        pairs = {
            stage: tuple(pair for pair in some if pair in strategy.own_towers)
            for stage, some in strategy.pairs.items()
        }
        bare = Views(strategy.embedded)
        bare.together = strategy.embedded.together
        found = contrast(strategy.space, strategy.batch, bare, pairs, strategy.current)
        for name, value in found.items():
            strategy.add_term(f"bare/{name}", value, weight=self.bare)

    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Drop the adapters' optimiser state; a later stage may train them again."""
        self.hold(strategy, frozen=False)
