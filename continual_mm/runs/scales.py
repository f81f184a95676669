"""How much a run keeps of the past."""

from typing import Any

from avalanche.core import BaseSGDPlugin

from continual_mm.learning.learner import Learner
from continual_mm.plugins.plugin import Plugin


class Scales(BaseSGDPlugin[Any]):
    """Weighs what plugins hold at a stage's last step, before they take the stage itself in.

    At a run's end that would be another number: the memory has been divided anew by then, and there
    are teachers and importances for a stage that never comes.

    Attributes:
        held: Bytes in the last stage trained by this process; None before one was.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held: int | None = None

    def after_training_epoch(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """A stage, which is an epoch, has made its last step."""
        self.held = sum(
            tensor.nbytes
            for plugin in strategy.plugins
            if isinstance(plugin, Plugin)
            for tensor in plugin.state().values()
        )
