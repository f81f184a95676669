"""Tells a listener of every step."""

from typing import Any

from avalanche.core import BaseSGDPlugin

from continual_mm.learning.learner import Learner
from continual_mm.runs.listener import Listener

__all__ = ["Listener", "Ticker"]


class Ticker(BaseSGDPlugin[Any]):
    """Tells a listener of every optimiser step."""

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener = listener

    def after_training_iteration(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """A step was made."""
        self._listener.steps(1)
