"""Word vectors on disk: a table and a list of its words, written once and from then on mapped."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.format import dtype_to_descr, write_array_header_1_0
from numpy.typing import NDArray

from continual_mm.data.published.word_files import Header, read_header, read_rows

Array = NDArray[np.float32]

_FORM = 2
"""Raised whenever what is kept of a file changes; tables of another form are made anew."""

_BLOCK = 1 << 20  # bytes that are written at once


@dataclass(frozen=True, slots=True)
class Places:
    """Where what is kept of a file of word vectors lies.

    Attributes:
        table: The vectors, ``.npy``.
        words: Their words, and what tells whose they are, ``.json``.
    """

    table: Path
    words: Path

    @classmethod
    def of(cls, path: Path, folder: Path) -> "Places":
        """For a file, in a folder."""
        table, words = (folder / f"{path.name}.vectors{ending}" for ending in (".npy", ".json"))
        return cls(table, words)


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """What was kept of a file.

    Attributes:
        words: In the order of the rows.
        values: (words, features) float32, a read-only map.
        fingerprint: Of all words and vectors.
    """

    words: list[str]
    values: Array
    fingerprint: str


def origin_of(path: Path) -> dict[str, Any]:
    """What tells that a file is still the one that was converted."""
    status = path.stat()
    return {"form": _FORM, "bytes": status.st_size, "changed": status.st_mtime_ns}


def kept(places: Places, origin: Mapping[str, Any]) -> Kept | None:
    """What was converted before, if it is whole and of the same file."""
    try:
        told = json.loads(places.words.read_text(encoding="utf-8"))
        if told["origin"] != dict(origin):
            return None
        values = np.load(places.table, mmap_mode="r", allow_pickle=False)
        found = Kept([str(word) for word in told["words"]], values, str(told["fingerprint"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None
    fits = values.dtype == np.float32 and values.ndim == 2 and len(values) == len(found.words)
    return found if fits else None


def convert(path: Path, places: Places, origin: Mapping[str, Any]) -> None:
    """Write the table of a file, unless another process has done that meanwhile.

    Everything goes through ordinary writing, never through a map: a disk that is full is then an
    error like others, and ends no process.

    Raises:
        RefusedError: If the file is damaged.
        OSError: If the file cannot be read, or the table not written.
    """
    places.table.parent.mkdir(parents=True, exist_ok=True)
    with _held(places.table.with_name(f".{places.table.name}.lock")):
        if kept(places, origin) is not None:
            return
        _sweep(places)
        try:
            _write(path, places, origin)
        finally:
            _sweep(places)


def _write(path: Path, places: Places, origin: Mapping[str, Any]) -> None:
    unfinished = {target: _unfinished(target) for target in (places.table, places.words)}
    header = read_header(path)
    with unfinished[places.table].open("wb", buffering=_BLOCK) as file:
        words, fingerprint = _write_table(path, header, file)
        _flush(file)
    told = {"origin": dict(origin), "fingerprint": fingerprint, "words": words}
    with unfinished[places.words].open("wb") as file:
        file.write(json.dumps(told, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        _flush(file)
    # The list names the file that both were made of, so it goes last.
    for target in (places.table, places.words):
        unfinished[target].replace(target)


def _write_table(path: Path, header: Header, file: BinaryIO) -> tuple[list[str], str]:
    """Write a table of exactly the rows that there are; of a word that occurs twice, the first."""
    _write_header(file, header.words, header.features)
    begin = file.tell()
    rows: dict[str, None] = {}
    digest = blake2b(digest_size=16)
    for word, vector in read_rows(path, header):
        if word in rows:
            continue
        rows[word] = None
        values = np.ascontiguousarray(vector, dtype=np.float32).tobytes()
        digest.update(word.encode("utf-8", "surrogatepass") + b"\0" + values)
        file.write(values)
    # NumPy leaves room in the header for any number of rows.
    file.seek(0)
    _write_header(file, len(rows), header.features)
    if file.tell() != begin:
        raise OSError(f"NumPy's header of {len(rows)} rows is not as long as that of more")
    return list(rows), digest.hexdigest()


def _write_header(file: BinaryIO, rows: int, features: int) -> None:
    descr = dtype_to_descr(np.dtype(np.float32))
    told = {"descr": descr, "fortran_order": False, "shape": (rows, features)}
    write_array_header_1_0(file, told)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _unfinished(target: Path) -> Path:
    return target.with_name(f".{target.name}.unfinished")


def _sweep(places: Places) -> None:
    """Remove what was not finished, now or by a process that was killed; only the lock's holder."""
    starts = tuple(f".{target.name}." for target in (places.table, places.words))
    for path in places.table.parent.iterdir():
        if path.name.startswith(starts) and path.suffix != ".lock":
            path.unlink(missing_ok=True)


@contextmanager
def _held(lock: Path) -> Iterator[None]:
    """Wait until nobody else is inside such a block; the lock goes with its process."""
    while True:
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever held it before has removed the file that was opened here.
            if not _is_same(file.fileno(), lock):
                continue
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def _is_same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
