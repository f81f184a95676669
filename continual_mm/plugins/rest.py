"""Rest: an old tower that a stage brings no new items for stays as it is."""

from typing import Any

from torch.nn import Parameter

from continual_mm.learning.learner import Learner
from continual_mm.plugins.freeze import quieten, release
from continual_mm.plugins.plugin import Plugin
from continual_mm.space.naming import modality_of, named_parameters


class Rest(Plugin):
    """Old towers learn only in stages that train a pair of theirs.

    What recalls old items (replay, transport, distillation) gives gradients to towers whose
    modality is away, from a handful of remembered items and nothing else. Adam makes full steps of
    them, and the tower learns those items by heart. Here it takes no gradient until a stage trains
    a pair with its modality again; towers that are there keep learning from remembered items, for
    which a tower at rest is a fixed target.

    Naive training gives such a tower no gradient in the first place: by itself the plugin changes
    nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self._resting: tuple[Parameter, ...] = ()

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Let towers rest that no pair of the stage needs; :class:`Warmup` holds others later."""
        pairs = strategy.stage_experience().pairs.values()
        needed = {
            name for trained in pairs for pair in trained for name in (pair.first, pair.second)
        }
        self._resting = tuple(
            parameter
            for name, parameter in named_parameters(strategy.space)
            if parameter.requires_grad and modality_of(name) not in {None, *needed}
        )
        for parameter in self._resting:
            parameter.requires_grad_(False)
            parameter.grad = None

    def before_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Put them into evaluation mode, which ``train()`` has just undone."""
        if self._resting:
            quieten(strategy.space)

    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Wake them, behind the stage's last optimiser step, a plugin's own steps included.

        Until the next stage nothing learns; what is frozen for good is frozen anew at its start.
        """
        release(strategy.space, self._resting)
        self._resting = ()
