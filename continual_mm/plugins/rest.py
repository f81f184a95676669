"""Rest: an old tower whose modality a stage does not train stays as it is."""

from typing import Any

from torch.nn import Parameter

from continual_mm.learning.learner import Learner
from continual_mm.plugins.freeze import eval_frozen, freeze, unfreeze
from continual_mm.plugins.plugin import Plugin
from continual_mm.space.naming import modality_of, named_parameters


class Rest(Plugin):
    """Old towers learn only in stages that train a pair with their modality.

    Plugins that use remembered items (replay, transport, distillation) give gradients to towers of
    modalities that the stage lacks, from few items and nothing else. Adam makes full steps of them,
    and the tower overfits those items. Here such a tower is frozen until a stage trains a pair with
    its modality again; the other towers keep learning from remembered items, for which a frozen
    tower is a fixed target.

    Naive training gives such a tower no gradient in the first place: by itself the plugin changes
    nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self._frozen: tuple[Parameter, ...] = ()

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Freeze towers that no pair of the stage needs; before ``Warmup`` freezes others."""
        pairs = strategy.stage_experience().pairs.values()
        needed = {
            name for trained in pairs for pair in trained for name in (pair.first, pair.second)
        }
        self._frozen = freeze(
            parameter
            for name, parameter in named_parameters(strategy.space)
            if modality_of(name) not in {None, *needed}
        )

    def before_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Set them to evaluation mode, which ``train()`` has just undone."""
        if self._frozen:
            eval_frozen(strategy.space)

    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Unfreeze them after the stage's last optimiser step, including steps of plugins."""
        unfreeze(strategy.space, self._frozen)
        self._frozen = ()
