"""Names in pickles that stand for torch's tensors: views of values that are all there."""

from collections.abc import Mapping
from types import MappingProxyType

from torch import Tensor

from continual_mm.preparation.formats.machine.fault import Budget, FaultError
from continual_mm.preparation.formats.machine.notes import Name, misused
from continual_mm.preparation.formats.machine.storages import (
    LEGACY_MAGIC,
    STORAGES,
    Storage,
    read_legacy,
)

_MOST_VALUES = 1 << 48
"""Of all axes that are not empty; NumPy takes no tensor that claims more, though it have none."""


def _storage(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case (bytes() as data,) if data.startswith(LEGACY_MAGIC):
            budget.charge(len(data))
            loaded = read_legacy(data, STORAGES)
            if isinstance(loaded, Storage):
                return loaded
    raise misused("torch.storage._load_from_bytes")


def _tensor(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case (Storage() as storage, int() as offset, tuple() as size, tuple() as stride, *_):
            return _view(storage.values, offset, _whole(size), _whole(stride))
    raise misused("torch._utils._rebuild_tensor_v2")


def _whole(values: tuple[object, ...]) -> tuple[int, ...]:
    whole = tuple(value for value in values if type(value) is int and value >= 0)
    if len(whole) != len(values):
        raise misused("a tensor's shape")
    return whole


def _view(flat: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """A tensor on a storage that has all of its values, each of them once."""
    count, furthest, claimed = 1, offset, 1
    for length, step in zip(size, stride, strict=True):
        count *= length
        claimed *= max(length, 1)
        furthest += (length - 1) * step
    if claimed > _MOST_VALUES:
        raise misused("a tensor's shape")
    if offset < 0 or count > len(flat) or (count > 0 and furthest >= len(flat)):
        raise FaultError(f"has a tensor of shape {size} in a storage of {len(flat)} values")
    view: Tensor = flat.as_strided(size, stride, offset) if count else flat[:0].reshape(size)
    return view


def _parameter(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case (Tensor() as data, *_):
            return data
    raise misused("torch._utils._rebuild_parameter")


def _size(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case (tuple() as size,):
            return _whole(size)
    raise misused("torch.Size")


_UTILS = "torch._utils"

TENSORS: Mapping[tuple[str, str], Name] = MappingProxyType(
    {
        ("torch", "Size"): Name("torch.Size", _size),
        (_UTILS, "_rebuild_tensor"): Name("torch._utils._rebuild_tensor", _tensor),
        (_UTILS, "_rebuild_tensor_v2"): Name("torch._utils._rebuild_tensor_v2", _tensor),
        (_UTILS, "_rebuild_parameter"): Name("torch._utils._rebuild_parameter", _parameter),
        ("torch.storage", "_load_from_bytes"): Name("torch.storage._load_from_bytes", _storage),
        **STORAGES,
    }
)
"""By module and name; parameters are read as tensors."""
