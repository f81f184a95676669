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
