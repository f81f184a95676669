"""The values of torch's tensors, and the files of ``torch.save`` that keep these beside a pickle.

Torch's own loads reserve what a file claims to hold, and make whatever their list of safe names
allows. Here a storage is so many bytes of the file, each taken once, and all else is a pickle.
"""

import mmap
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import IO

import torch
from torch import Tensor

from continual_mm.preparation.formats.machine.fault import FaultError
from continual_mm.preparation.formats.machine.literals import Source
from continual_mm.preparation.formats.machine.machine import STUMBLES, Kept, Machine, Names
from continual_mm.preparation.formats.machine.notes import Name, misused

ZIP_MAGIC, LEGACY_MAGIC = b"PK\x03\x04", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How files begin that ``torch.save`` wrote, since torch 1.6 and before."""

_DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "torch.FloatStorage": torch.float32,
        "torch.DoubleStorage": torch.float64,
        "torch.HalfStorage": torch.float16,
        "torch.BFloat16Storage": torch.bfloat16,
        "torch.LongStorage": torch.int64,
        "torch.IntStorage": torch.int32,
        "torch.ShortStorage": torch.int16,
        "torch.CharStorage": torch.int8,
        "torch.ByteStorage": torch.uint8,
        "torch.BoolStorage": torch.bool,
    }
)
STORAGES: Mapping[tuple[str, str], Name] = MappingProxyType(
    {("torch", name.removeprefix("torch.")): Name(name) for name in _DTYPES}
)
"""By module and name: kinds of storage, which may only be named."""

_COUNT = struct.Struct("<q")
_LEGACY_FORM = 1001
_NOTHING: Names = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """What tensors are views of.

    Attributes:
        values: (values,).
        memory: The same as bytes, for writing.
    """

    values: Tensor
    memory: bytearray

    @classmethod
    def of(cls, dtype: torch.dtype, memory: bytearray) -> "Storage":
        """So many bytes as values of a dtype."""
        empty = torch.empty(0, dtype=dtype)
        return cls(torch.frombuffer(memory, dtype=dtype) if memory else empty, memory)


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a pickle says of a storage that is kept beside it."""

    key: str
    dtype: torch.dtype
    bytes: int

    @classmethod
    def of(cls, said: object) -> "_Claim":
        match said:
            case ("storage", Name() as kind, str() as key, str(), int() as count, *rest):
                if kind.text in _DTYPES and count >= 0 and rest in ([], [None]):
                    dtype = _DTYPES[kind.text]
                    return cls(key, dtype, count * dtype.itemsize)
        raise misused("a tensor's storage")


class _Storages:
    """The storages of a file, made when a pickle first asks for them; never more than its size."""

    def __init__(self, size: int) -> None:
        self._left = size
        self.made: dict[str, tuple[_Claim, Storage]] = {}

    def asked(self, said: object) -> Storage:
        claim = _Claim.of(said)
        if claim.key not in self.made:
            self._left -= claim.bytes
            if self._left < 0:
                raise FaultError("claims to hold more than its size")
            self.made[claim.key] = (claim, Storage.of(claim.dtype, self.memory(claim)))
        before, storage = self.made[claim.key]
        if before != claim:
            raise misused("a tensor's storage")
        return storage

    def memory(self, claim: _Claim) -> bytearray:
        """The bytes of a storage, or as many zeros if these come later."""
        return bytearray(claim.bytes)


class _ZippedStorages(_Storages):
    def __init__(self, size: int, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(size)
        self._archive, self._folder = archive, folder

    def memory(self, claim: _Claim) -> bytearray:
        found = bytearray(_member(self._archive, f"{self._folder}/data/{claim.key}"))
        if len(found) != claim.bytes:
            raise FaultError("has a tensor of another size than its values")
        return found


def read_zip(stream: IO[bytes], names: Names) -> object:
    """What ``torch.save`` wrote since torch 1.6.

    Args:
        stream: The file.
        names: All that its pickle may name.

    Raises:
        FaultError: If it is anything else, damaged, or names anything else.
    """
    size = stream.seek(0, 2)
    try:
        with zipfile.ZipFile(stream) as archive:
            folder = _folder(archive)
            data = _member(archive, f"{folder}/data.pkl")
            kept = _ZippedStorages(size, archive, folder)
            return Machine(data, names, kept=kept.asked).run()
    except (zipfile.BadZipFile, NotImplementedError, OSError, *STUMBLES) as error:
        raise FaultError("is cut short or damaged", "copy or write it again") from error


def _folder(archive: zipfile.ZipFile) -> str:
    """The folder inside that holds everything; torch calls it as the file was called."""
    folders = [
        name.removesuffix("/data.pkl")
        for name in archive.namelist()
        if name.endswith("/data.pkl") and name.count("/") == 1
    ]
    if len(folders) != 1:
        raise FaultError("is a zip archive that torch.save did not write", "give a pickle")
    order = f"{folders[0]}/byteorder"
    if order in archive.namelist() and _member(archive, order) != b"little":
        raise FaultError("was written on a big-endian machine", "load and save it yourself")
    return folders[0]


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Torch compresses nothing; what is compressed is there to grow without bounds."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise FaultError("is compressed, which torch.save never does", "write it again")
    return archive.read(name)


def read_legacy(data: bytes | mmap.mmap, names: Names) -> object:
    """What ``torch.save`` wrote before torch 1.6: pickles, then the values.

    Args:
        data: The file.
        names: All that its pickle may name.

    Raises:
        FaultError: If it is anything else, damaged, or names anything else.
    """
    form, at = _next(data, len(LEGACY_MAGIC))
    machine, at = _next(data, at)
    if form != _LEGACY_FORM or not _is_little(machine):
        raise FaultError("is of a form of torch.save that is not read", "load and save it again")
    kept = _Storages(len(data))
    found, at = _next(data, at, names, kept.asked)
    keys, at = _next(data, at)
    _fill(kept, keys, Source(data, at))
    return found


def _next(
    data: bytes | mmap.mmap, at: int, names: Names = _NOTHING, kept: Kept | None = None
) -> tuple[object, int]:
    """The pickle that begins at some byte, and where the next one does."""
    machine = Machine(data, names, at=at, kept=kept)
    return machine.run(), machine.source.at


def _is_little(machine: object) -> bool:
    return isinstance(machine, dict) and machine.get("little_endian") is True


def _fill(kept: _Storages, keys: object, source: Source) -> None:
    """Take the values of storages, which stand behind each other, each with their number."""
    if not isinstance(keys, list) or any(key not in keys for key in kept.made):
        raise FaultError("has tensors without values")
    for key in keys:
        if not isinstance(key, str) or key not in kept.made:
            raise misused("a tensor's storage")
        claim, storage = kept.made[key]
        if source.number(_COUNT) * claim.dtype.itemsize != claim.bytes:
            raise FaultError("has a tensor of another size than its values")
        storage.memory[:] = source.take(claim.bytes)
