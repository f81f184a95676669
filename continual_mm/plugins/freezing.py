"""Holding still what a space has learned: no gradient, and modules in evaluation mode."""

from collections.abc import Iterable

from torch import nn
from torch.nn import Parameter


def hold(space: nn.Module) -> tuple[Parameter, ...]:
    """Let no parameter take a gradient; gives those that took one until now."""
    held = tuple(parameter for parameter in space.parameters() if parameter.requires_grad)
    for parameter in held:
        parameter.requires_grad_(False)
        parameter.grad = None
    return held


def quieten(space: nn.Module) -> tuple[nn.Module, ...]:
    """Put modules that train nothing into evaluation mode; gives those that were not in it."""
    quiet: dict[nn.Module, None] = {}
    for module in space.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            quiet |= dict.fromkeys(inner for inner in module.modules() if inner.training)
            module.eval()
    return tuple(quiet)


def release(space: nn.Module, held: Iterable[Parameter], quiet: Iterable[nn.Module]) -> None:
    """Undo :func:`hold` and :func:`quieten`; what something else holds as well stays quiet."""
    for parameter in held:
        parameter.requires_grad_(True)
    for module in quiet:
        module.training = True
    quieten(space)
