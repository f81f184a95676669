"""Untrusted .npz files: described without reading an array, read without running anything."""

import hashlib
import math
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import numpy.lib.format as npy
from numpy.typing import NDArray

from continual_mm.data.findings import Findings
from continual_mm.system.errors import InputError

UNREADABLE = (
    *(ArithmeticError, EOFError, LookupError, MemoryError, OSError, RuntimeError, SyntaxError),
    *(TypeError, ValueError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
"""Errors that zipfile and numpy's header parser raise on damaged or hostile bytes."""

_MAX_DEFLATE_RATIO = 1032
"""No deflate stream grows by more: its shortest code, two bits, stands for 258 bytes."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a member says about its array before any value is read."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Archive:
    """An open .npz file, to be used in a ``with`` block; its problems go to ``findings``.

    ``headers`` are those of columns that need no unpickling and are as large as they claim;
    ``fingerprint`` is the SHA-256 of the members' names, checksums and sizes.
    """

    def __init__(self, path: Path, findings: Findings) -> None:
        """Open a file and read its directory and headers; an InputError if it is no .npz file."""
        self._findings = findings
        self._zip = _open(path, findings.source)
        self.headers: dict[str, Header] = {}
        members = [info for info in self._zip.infolist() if info.filename.endswith(".npy")]
        for member in members:
            self._describe(member)
        if sum(member.compress_size for member in members) > path.stat().st_size:
            findings.about_source("its members overlap: the file was made to mislead")
        lines = sorted(f"{m.filename} {m.CRC:08x} {m.file_size}" for m in self._zip.infolist())
        self.fingerprint = hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._zip.close()

    def read(self, column: str) -> NDArray[Any] | None:
        """Read one array; None, and a problem, if its bytes are damaged."""
        try:
            with self._zip.open(f"{column}.npy") as stream:
                array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
            return array
        except UNREADABLE as error:
            self._damaged(column, error)
            return None

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
        except UNREADABLE as error:
            self._damaged(column, error)
            return
        if fault := _fault(member, header, size):
            self._findings.about(column, *fault)
        else:
            self.headers[column] = header

    def _damaged(self, column: str, error: Exception) -> None:
        reason = str(error) or type(error).__name__
        self._findings.about(column, f"cannot be read ({reason})", "the file is damaged")


def _open(path: Path, source: str) -> zipfile.ZipFile:
    # Reading a pipe would wait for its writer, and a device may never end.
    if path.exists() and not path.is_file():
        problem = "is no regular file"
    else:
        try:
            return zipfile.ZipFile(path)
        except OSError as error:
            problem = f"cannot be opened: {error.strerror or error}"
        except UNREADABLE:
            problem = "is no .npz file, or is cut short"
    raise InputError.at(source, problem, "give a file as numpy.savez writes it")


def _read_header(stream: IO[bytes]) -> Header:
    # Later versions are for headers of more than 64 KB, which would be read before any check.
    if (version := npy.read_magic(stream)) != (1, 0):
        raise ValueError(f"version {version} of the .npy format")
    shape, _, dtype = npy.read_array_header_1_0(stream)
    return Header(dtype, shape)


def _fault(member: zipfile.ZipInfo, header: Header, size: int) -> tuple[str, str] | None:
    """Problem and remedy of a member that holds pickles, or less than its header claims."""
    if header.dtype.hasobject:
        return (
            "holds pickled Python objects, which are never opened: they could run anything",
            "store numbers, or strings as numpy unicode; pad ragged rows and store their lengths",
        )
    damaged = "the file is damaged or was made to mislead"
    if size != member.file_size:
        claim = f"{header.dtype} of shape {header.shape}"
        return f"claims {claim}, {size} bytes, but holds {member.file_size}", damaged
    if size > _MAX_DEFLATE_RATIO * member.compress_size or header.dtype.itemsize == 0:
        return f"{member.compress_size} compressed bytes cannot hold {size}", damaged
    return None
