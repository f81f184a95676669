"""Low-rank adapters of a tower, by peft: a second tower that shares the first one's weights."""

import re
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


def adapted(tower: nn.Module, *, rank: int, alpha: float, seed: int) -> nn.Module | None:
    r"""A tower with adapters of its own on the weights of another.

    A layer :math:`W x + b` becomes :math:`W x + b + \frac{\alpha}{r} B A x` (Hu et al. 2021, arXiv
    2106.09685), with :math:`A` of rank r drawn at random and :math:`B = 0`, so that at first the
    two towers give the same bits. W and b are not copied: they are the same parameters, and take no
    gradient from now on. The new tower is in evaluation mode.

    Args:
        tower: What is adapted; it stays as it is.
        rank: Rank r of an adapter.
        alpha: Its scale, relative to the rank.
        seed: Where A comes from.

    Returns:
        The new tower, or None if there is no layer to adapt.
    """
    shared = {id(tensor): tensor for tensor in chain(tower.parameters(), tower.buffers())}
    second = deepcopy(tower, shared)
    return second if _attached(second, rank=rank, alpha=alpha, seed=seed) else None


def merge(tower: nn.Module, adapters: dict[str, torch.Tensor], *, alpha: float) -> None:
    """Add adapters to a tower's own weights, which then are those that one pair sees.

    Args:
        tower: What is changed.
        adapters: Values by the names that the parameters of :func:`adapted` have.
        alpha: The scale that they were trained with.
    """
    rank = next(value.shape[0] for name, value in adapters.items() if ".lora_A." in name)
    model = _attached(tower, rank=rank, alpha=alpha, seed=0)
    if model is None:
        return
    parameters = dict(named_parameters(tower))
    with torch.no_grad():
        for name, value in adapters.items():
            parameters[name].copy_(value)
    model.merge_and_unload()


def _attached(tower: nn.Module, *, rank: int, alpha: float, seed: int) -> LoraModel | None:
    layers = adaptable(tower)
    if not layers:
        return None
    whole_names = "|".join(map(re.escape, layers))
    settings = LoraConfig(r=rank, lora_alpha=alpha, target_modules=whole_names)
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
