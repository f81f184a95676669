"""Modules whose layers have other widths than those they are built with."""

from collections.abc import Mapping, Sequence
from math import prod

from torch import Tensor, nn
from torch.nn import Parameter

from continual_mm.space.encoders import Encoder, GatedUnit
from continual_mm.space.merged import Merged

MOST = 1 << 32  # numbers of a tensor: of the widest space that settings may ask for


def resize(module: nn.Module, shapes: Mapping[str, Sequence[int]]) -> None:
    """Give tensors of a module other shapes, and tell its layers and encoders of them.

    Those whose shape changes hold zeros afterwards; the others stay as they are.

    Args:
        module: Of linear maps, convolutions and norms.
        shapes: Name of a parameter or buffer -> its shape.

    Raises:
        AttributeError: If there is no such tensor.
        ValueError: If a tensor has another number of axes, or would have no or too many numbers.
    """
    for name, shape in shapes.items():
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        known: Tensor = getattr(owner, leaf)
        if known.dim() != len(shape) or min(shape, default=1) < 1 or prod(shape) > MOST:
            raise ValueError(f"{name}, {tuple(known.shape)}, cannot be of shape {tuple(shape)}")
        if tuple(known.shape) == tuple(shape):
            continue
        zeros = known.new_zeros(tuple(shape))
        trained = isinstance(known, Parameter)
        setattr(owner, leaf, Parameter(zeros, known.requires_grad) if trained else zeros)
        _declare(owner)
    for each in module.modules():
        if isinstance(each, Encoder) and isinstance(getattr(each, "unit", None), GatedUnit):
            each.pooled = each.get_submodule("unit.fc").get_parameter("weight").shape[1]
    for each in module.modules():
        if isinstance(each, Merged):
            each.pooled = each.encoders[0].pooled


def _declare(layer: nn.Module) -> None:
    """Let a layer say the widths that its weight has."""
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.Conv1d):
        layer.out_channels, layer.in_channels = layer.weight.shape[:2]
    elif isinstance(layer, nn.LayerNorm):
        layer.normalized_shape = tuple(layer.weight.shape)
    elif isinstance(layer, nn.BatchNorm1d):
        layer.num_features = len(layer.weight)
