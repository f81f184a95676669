"""Freeze: what has been learned stays bit for bit as it is; only what arrives is trained."""

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn import Parameter

from continual_mm.learning.learner import Learner
from continual_mm.plugins.plugin import Plugin


def hold(space: nn.Module) -> tuple[Parameter, ...]:
    """Let no parameter take a gradient; gives those that took one until now."""
    held = tuple(parameter for parameter in space.parameters() if parameter.requires_grad)
    for parameter in held:
        parameter.requires_grad_(False)
        parameter.grad = None
    return held


def quieten(space: nn.Module) -> None:
    """Put modules that train nothing into evaluation mode."""
    for module in space.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def release(space: nn.Module, held: Iterable[Parameter]) -> None:
    """Undo :func:`hold` and :func:`quieten`; what something else holds as well stays quiet.

    Whose modules train again follows from the parameters alone, whoever put them to rest.
    """
    woken = set(held)
    for parameter in woken:
        parameter.requires_grad_(True)
    for module in space.modules():
        if not woken.isdisjoint(module.parameters()):
            module.train()
    quieten(space)


class Freeze(Plugin):
    """No forgetting by construction, and no plasticity of the old towers either.

    From the second stage on everything in the space that was there before takes no gradient, stays
    in evaluation mode, is left out of the optimiser, and the centroids are not refitted. Old towers
    serve as a fixed target for the new one.
    """

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Freeze what is there before anything arrives."""
        if strategy.space.modalities:
            hold(strategy.space)
            strategy.clusters.fixed = True

    def before_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Put the frozen modules into evaluation mode, which ``train()`` has just undone."""
        quieten(strategy.space)
