"""Names in pickles that stand for torch's tensors; only weights-only loads touch the bytes."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from types import MappingProxyType
from typing import IO
from warnings import catch_warnings, simplefilter

import torch
from torch import Tensor
from torch.storage import TypedStorage

from continual_mm.data.pickles.fault import Budget, FaultError
from continual_mm.data.pickles.notes import Name, misused

ZIP_MAGIC, LEGACY_MAGIC = b"PK\x03\x04", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How files begin that ``torch.save`` wrote, since torch 1.6 and before."""

_STUMBLES = (
    *(RuntimeError, UnpicklingError, EOFError, OSError, MemoryError, LookupError),
    *(ValueError, TypeError, AttributeError, AssertionError, ArithmeticError),
)
_REMEDY = "only tensors and plain containers are read from what torch.save wrote; save these alone"


def read_saved(path: Path) -> object:
    """What ``torch.save`` wrote into a file, as far as it is tensors and plain containers.

    Raises:
        FaultError: If it is anything else, or damaged.
    """
    with path.open("rb") as stream:
        if stream.read(len(ZIP_MAGIC)) == ZIP_MAGIC:
            _check_zip(stream)
        stream.seek(0)
        return _loaded(stream)


def _check_zip(stream: IO[bytes]) -> None:
    """Torch compresses nothing; what is compressed is there to grow without bounds."""
    try:
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, *_STUMBLES) as error:
        raise FaultError("is cut short or damaged", "copy or write it again") from error
    if not any(member.filename.endswith("/data.pkl") for member in members):
        raise FaultError("is a zip archive that torch.save did not write", "give a pickle")
    size = stream.seek(0, io.SEEK_END)
    if sum(member.file_size for member in members) > size:
        raise FaultError("claims to hold more than its size, which torch.save never does")


def _loaded(stream: IO[bytes]) -> object:
    try:
        with catch_warnings():
            # Of storages, which torch calls deprecated, and of pickles of another protocol.
            simplefilter("ignore", UserWarning)
            return torch.load(stream, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        # Torch goes on to advise a load that runs everything, which nobody should follow.
        named = str(error).partition("GLOBAL ")[2].partition(" ")[0]
        what = f"holds {named}, which is not opened" if named else "holds more than tensors"
        raise FaultError(what, _REMEDY) from error
    except _STUMBLES as error:
        raise FaultError("cannot be read by torch", "copy or write it again") from error


def _storage(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case (bytes() as data,) if data.startswith(LEGACY_MAGIC):
            budget.charge(len(data))
            loaded = _loaded(io.BytesIO(data))
            if isinstance(loaded, TypedStorage):
                return loaded
    raise misused("torch.storage._load_from_bytes")


def _tensor(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case (TypedStorage() as storage, int() as offset, tuple() as size, tuple() as stride, *_):
            return _view(storage, offset, _whole(size), _whole(stride))
    raise misused("torch._utils._rebuild_tensor_v2")


def _whole(values: tuple[object, ...]) -> tuple[int, ...]:
    whole = tuple(value for value in values if type(value) is int and value >= 0)
    if len(whole) != len(values):
        raise misused("a tensor's shape")
    return whole


def _view(
    storage: TypedStorage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> Tensor:
    """A tensor on a storage that has all of its values, each of them once."""
    flat = torch.empty(0, dtype=storage.dtype).set_(storage)
    count, furthest = 1, offset
    for length, step in zip(size, stride, strict=True):
        count *= length
        furthest += (length - 1) * step
    if offset < 0 or count > len(flat) or (count > 0 and furthest >= len(flat)):
        raise FaultError(f"has a tensor of shape {size} in a storage of {len(flat)} values")
    view: Tensor = flat.as_strided(size, stride, offset) if count else flat[:0].reshape(size)
    return view


def _size(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case (tuple() as size,):
            return _whole(size)
    raise misused("torch.Size")


TENSORS: Mapping[tuple[str, str], Name] = MappingProxyType(
    {
        ("torch", "Size"): Name("torch.Size", _size),
        ("torch._utils", "_rebuild_tensor"): Name("torch._utils._rebuild_tensor", _tensor),
        ("torch._utils", "_rebuild_tensor_v2"): Name("torch._utils._rebuild_tensor_v2", _tensor),
        ("torch.storage", "_load_from_bytes"): Name("torch.storage._load_from_bytes", _storage),
    }
)
"""By module and name."""
