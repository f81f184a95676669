"""Freeze: what was learned stays bit for bit as it is; only what a stage adds is trained."""

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn import Parameter

from continual_mm.learning.learner import Learner
from continual_mm.plugins.plugin import Plugin


def freeze(parameters: Iterable[Parameter]) -> tuple[Parameter, ...]:
    """Stop gradients of parameters; returns those that had ``requires_grad`` until now."""
    frozen = tuple(parameter for parameter in parameters if parameter.requires_grad)
    for parameter in frozen:
        parameter.requires_grad_(False)
        parameter.grad = None
    return frozen


def eval_frozen(module: nn.Module) -> None:
    """Set those submodules to evaluation mode that have parameters, all of them frozen."""
    for part in module.modules():
        parameters = list(part.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            part.eval()


def unfreeze(module: nn.Module, frozen: Iterable[Parameter]) -> None:
    """Undo :func:`freeze` for some parameters, and set modules that have one to training mode."""
    freed = set(frozen)
    for parameter in freed:
        parameter.requires_grad_(True)
    for part in module.modules():
        if not freed.isdisjoint(part.parameters()):
            part.train()
    eval_frozen(module)


class Freeze(Plugin):
    """No forgetting by construction, and no plasticity of the old towers either.

    From the second stage on, all parameters of the space that existed before take no gradient and
    are left out of the optimiser, their modules stay in evaluation mode, and the centroids are not
    refitted. Old towers are a fixed target for the new one.
    """

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Freeze the space before it grows."""
        if strategy.space.modalities:
            freeze(strategy.space.parameters())
            strategy.clusters.fixed = True

    def before_training_exp(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Set frozen modules to evaluation mode, which ``train()`` has just undone."""
        eval_frozen(strategy.space)
