"""What every way of not forgetting shares: a learner's callbacks and a state that can be saved."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from continual_mm.learning.avalanche import BaseSGDPlugin
from continual_mm.learning.learner import Learner


class Plugin(BaseSGDPlugin[Any]):
    """A plugin of the learner.

    A subclass overrides one or two of Avalanche's callbacks, calls ``learner.add_term`` in
    ``before_backward``, and keeps what it remembers in tensors that ``state`` gives away.
    """

    needs_memory: bool = False
    """Whether a strategy that names the plugin must have a ``[memory]`` table."""

    for_bounds: bool = False
    """Whether it says how pairs are trained rather than how old ones are kept; joint and cumulative
    training, which keep nothing, take such plugins too."""

    on_device: bool = True
    """Whether what the plugin remembers lies where the space is trained."""

    recalled_rows: int = 0
    """Remembered rows that the plugin wants in each batch; the largest wish is met."""

    extra_steps: int = 0
    """Optimiser steps that the plugin has made until now, beside those of the learner."""

    @property
    def curves(self) -> Mapping[str, Tensor]:
        """Numbers of the last step that the board draws, by tag; terms of the loss it has."""
        return {}

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Called before a stage, when what arrives with it is not in the space yet."""

    def before_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Called before a stage, when the space has grown."""

    def before_forward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Called when the step's batch is there, before it is embedded."""

    def before_backward(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Called when the step's loss is there: the place for ``learner.add_term``."""

    def after_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Called when a stage is finished, before it is scored."""

    def state(self) -> dict[str, Tensor]:
        """Everything the plugin remembers."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`state`."""


def at_least_zero(name: str, value: float) -> float:
    """The value, if it is a usable weight.

    Raises:
        ValueError: If it is negative or not finite.
    """
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} = {value}: give a finite number of at least 0")
    return float(value)


def fraction(name: str, value: float) -> float:
    """The value, if it is a part of something.

    Raises:
        ValueError: If it does not lie in [0, 1].
    """
    if not 0 <= value <= 1:
        raise ValueError(f"{name} = {value}: give a number from 0 to 1")
    return float(value)


def switch(name: str, value: int) -> bool:
    """Whether something is on, which a file says by 0 or 1.

    Raises:
        ValueError: If it is neither.
    """
    if value not in (0, 1):
        raise ValueError(f"{name} = {value}: give 0 or 1")
    return bool(value)


def contents(kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as they are kept in a state: ``kind/name``."""
    return {f"{kind}/{name}": value for name, value in tensors.items()}


def extracted(kind: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What :func:`contents` put into a state."""
    start = f"{kind}/"
    return {key.removeprefix(start): v for key, v in state.items() if key.startswith(start)}
