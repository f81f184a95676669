"""Low-rank adapters of a tower, by peft: a second tower that shares the first one's weights."""

import re
from collections.abc import Mapping
from copy import deepcopy
from itertools import chain

import torch
from torch import nn

from continual_mm.space.naming import named_parameters

try:
    from peft import LoraConfig, LoraModel
    from peft.tuners.lora import LoraLayer
except ModuleNotFoundError as error:
    told = f"pair_lora needs {error.name}: pip install 'continual-mm[lora]'"
    raise ModuleNotFoundError(told, name=error.name) from error

ADAPTER = "pair"
"""What peft calls the only adapter of a tower."""

FIRST = ".lora_A."
"""What stands behind a layer's name in that of the adapter's first factor."""

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d)
"""Layers that get one. Of just these types: what derives from them, such as the projection inside
``nn.MultiheadAttention``, may be read by others without being called."""


def adaptable(tower: nn.Module) -> list[str]:
    """Names of the layers that adapters are made for; convolutions in groups are left out."""
    return [
        name
        for name, module in tower.named_modules()
        if type(module) in KINDS and getattr(module, "groups", 1) == 1
    ]


def adapted(tower: nn.Module, *, rank: int, scale: float, seed: int) -> nn.Module | None:
    r"""A tower with adapters of its own on the weights of another.

    A layer :math:`W x + b` becomes :math:`W x + b + s B A x` (Hu et al. 2021, arXiv 2106.09685,
    where s is written :math:`\alpha / r`), with :math:`A` of rank r drawn at random and
    :math:`B = 0`, so that at first the two towers give the same bits. W and b are not copied: they
    are the same parameters, and take no gradient from now on. The new tower is in evaluation mode.

    Args:
        tower: What is adapted; it stays as it is.
        rank: Rank r of an adapter. A layer with fewer inputs or outputs gets the rank that W can
            have: a larger one adds bytes and no function.
        scale: The scale s.
        seed: Where A comes from.

    Returns:
        The new tower, or None if there is no layer to adapt.
    """
    shared = {id(tensor): tensor for tensor in chain(tower.parameters(), tower.buffers())}
    second = deepcopy(tower, shared)
    ranks = {name: min(rank, *_sides(second, name)) for name in adaptable(second)}
    return second if _attached(second, ranks, scale=scale, seed=seed) else None


def merge(tower: nn.Module, adapters: dict[str, torch.Tensor], *, scale: float) -> None:
    """Add adapters to a tower's own weights, which then are those that one pair sees.

    Args:
        tower: What is changed.
        adapters: Values by the names that the parameters of :func:`adapted` have.
        scale: The scale that they were trained with.
    """
    ranks = {
        name.split(FIRST)[0]: value.shape[0] for name, value in adapters.items() if FIRST in name
    }
    model = _attached(tower, ranks, scale=scale, seed=0)
    if model is None:
        return
    parameters = dict(named_parameters(tower))
    with torch.no_grad():
        for name, value in adapters.items():
            parameters[name].copy_(value)
    model.merge_and_unload()


def _sides(tower: nn.Module, name: str) -> tuple[int, int]:
    """How many numbers a layer's weight takes in for each number that it gives, and gives out."""
    weight = tower.get_submodule(name).get_parameter("weight")
    return weight[0].numel(), len(weight)


def _attached(
    tower: nn.Module, ranks: Mapping[str, int], *, scale: float, seed: int
) -> LoraModel | None:
    if not ranks:
        return None
    names = {name: re.escape(name) for name in ranks}
    settings = LoraConfig(
        target_modules="|".join(names.values()),
        # peft looks for what a layer's name ends with, unless told where it begins.
        rank_pattern={f"^{names[name]}": rank for name, rank in ranks.items()},
        alpha_pattern={f"^{names[name]}": scale * rank for name, rank in ranks.items()},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**31)
        model = LoraModel(tower, settings, ADAPTER)
    for module in tower.modules():
        if isinstance(module, LoraLayer):
            # torch's fast path of transformers reads weights past a layer unless it has a hook.
            module.register_forward_pre_hook(_notice)
    tower.eval()
    return model


def _notice(_module: nn.Module, _inputs: object) -> None:
    """Change nothing."""
