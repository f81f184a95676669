"""An .npz file from a stranger: described without being read, and read without running anything."""

import hashlib
import math
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.lib.format as npy
from numpy.typing import NDArray

from continual_mm.data.findings import Findings
from continual_mm.system.errors import InputError, Problem

_UNREADABLE = (
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""Whatever zipfile and numpy's header parser are known to raise on damaged or hostile bytes."""

_HEADER_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_DEFLATE_AT_MOST = 1032
"""No deflate stream grows by more: its shortest code, two bits, stands for 258 bytes."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a member says about its array before any value is read."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Archive:
    """An open .npz file, to be used in a ``with`` block.

    Attributes:
        headers: By column; only columns that can be read without running or exhausting anything.
        fingerprint: SHA-256 of the members' names, checksums and sizes; needs no array.
    """

    def __init__(self, path: Path, findings: Findings) -> None:
        """Open a file and read its directory and headers.

        Args:
            path: The file.
            findings: Takes problems about columns, here and in :meth:`read`.

        Raises:
            InputError: If it is no .npz file at all.
        """
        self._findings = findings
        self._zip = _open(path, findings.source)
        self.headers: dict[str, Header] = {}
        members = [info for info in self._zip.infolist() if info.filename.endswith(".npy")]
        for member in members:
            self._describe(member)
        if sum(member.compress_size for member in members) > path.stat().st_size:
            findings.about_source("its members overlap, which no honest writer does")
        self.fingerprint = _fingerprint(self._zip.infolist())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._zip.close()

    def read(self, column: str) -> NDArray[Any] | None:
        """Read one array; None, and a problem, if its bytes are damaged."""
        try:
            with self._zip.open(f"{column}.npy") as stream:
                array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
        except _UNREADABLE as error:
            self._findings.about(column, *_damage(error))
            return None
        return array

    def _describe(self, member: zipfile.ZipInfo) -> None:
        column = member.filename.removesuffix(".npy")
        if column in self.headers or column in self._findings.faulty:
            self.headers.pop(column, None)
            self._findings.about(column, "is in the file more than once")
            return
        try:
            with self._zip.open(member) as stream:
                header = _read_header(stream)
                size = stream.tell() + math.prod(header.shape) * header.dtype.itemsize
        except _UNREADABLE as error:
            self._findings.about(column, *_damage(error))
            return
        if fault := _fault(member, header, size):
            self._findings.about(column, *fault)
        else:
            self.headers[column] = header


def _open(path: Path, source: str) -> zipfile.ZipFile:
    remedy = "give a file as numpy.savez writes it"
    start = b""
    try:
        # A pipe would be waited for, and a device may never end.
        if path.exists() and not (path.is_file() or path.is_dir()):
            problem = "is no regular file"
        else:
            with path.open("rb") as stream:
                start = stream.read(len(npy.MAGIC_PREFIX))
            return zipfile.ZipFile(path)
    except OSError as error:
        problem = f"cannot be opened: {error.strerror or error}"
    except _UNREADABLE:
        if start == npy.MAGIC_PREFIX:
            problem = "is a single array (.npy), not a pack (.npz)"
        elif start.startswith(b"PK"):
            problem, remedy = "is cut short or damaged", "copy or write it again"
        else:
            problem = "is no .npz file"
    raise InputError(Problem(source, problem, remedy))


def _read_header(stream: IO[bytes]) -> Header:
    version = npy.read_magic(stream)
    shape, _, dtype = _HEADER_READERS[version](stream)
    return Header(dtype, shape)


def _damage(error: Exception) -> tuple[str, str]:
    return f"cannot be read ({str(error) or type(error).__name__})", "the file is damaged"


def _fault(member: zipfile.ZipInfo, header: Header, size: int) -> tuple[str, str] | None:
    if header.dtype.hasobject:
        return (
            "holds pickled Python objects, which are never opened: they could run anything",
            "store numbers, or strings as numpy unicode; pad ragged rows and store their lengths",
        )
    damaged = "the file is damaged or was made to mislead"
    if size != member.file_size:
        claim = f"{header.dtype} of shape {header.shape}"
        return f"claims {claim}, {size} bytes, but holds {member.file_size}", damaged
    if size > _DEFLATE_AT_MOST * member.compress_size or header.dtype.itemsize == 0:
        return f"{member.compress_size} compressed bytes cannot hold {size}", damaged
    return None


def _fingerprint(members: list[zipfile.ZipInfo]) -> str:
    lines = sorted(f"{one.filename} {one.CRC:08x} {one.file_size}" for one in members)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
