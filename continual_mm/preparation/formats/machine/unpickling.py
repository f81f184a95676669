"""Opening a pickle from a stranger: numbers, text, containers, arrays; never code."""

import mmap
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from continual_mm.preparation.formats.machine.arrays import ARRAYS
from continual_mm.preparation.formats.machine.arrow import ARROW
from continual_mm.preparation.formats.machine.fault import FaultError
from continual_mm.preparation.formats.machine.frames import FRAMES
from continual_mm.preparation.formats.machine.machine import Machine
from continual_mm.preparation.formats.machine.notes import Name
from continual_mm.preparation.formats.machine.plain import PLAIN
from continual_mm.preparation.formats.machine.storages import (
    LEGACY_MAGIC,
    ZIP_MAGIC,
    read_legacy,
    read_zip,
)
from continual_mm.preparation.formats.machine.tensors import TENSORS
from continual_mm.system.errors import InputError, Problem

_ALLOWED: Mapping[tuple[str, str], Name] = MappingProxyType(
    {**PLAIN, **ARRAYS, **TENSORS, **ARROW, **FRAMES}
)


def load_pickle(path: Path) -> object:
    """Read a pickle, or what ``torch.save`` wrote, without running anything that is in it.

    Containers and scalars come back as they are, ``OrderedDict`` and ``defaultdict`` as dicts;
    NumPy's arrays, which may be read-only, scalars and dtypes; torch's tensors, on the CPU and
    without gradient; a frame of pandas as a dict of its columns, a series as its values. Pickles of
    Python 2 are read too, their strings with one character per byte (latin-1), since any may be
    an array's; ``literals.told`` reads those that are text.

    Args:
        path: A pickle of any protocol, or a file of torch, zip or legacy.

    Raises:
        InputError: If there is no such file, if it is damaged, or if it names any other function
            or class, which is told by its full name.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(len(LEGACY_MAGIC))
            if not start:
                raise FaultError("is empty", "copy or write it again")
            if start.startswith(ZIP_MAGIC):
                return read_zip(stream, _ALLOWED)
            if not path.is_file():
                raise FaultError("is no file on a disk", "copy it to one")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _run(data)
    except OSError as error:
        raise InputError(
            Problem(str(path), f"cannot be opened: {error.strerror or error}")
        ) from error
    except FaultError as fault:
        raise InputError(Problem(str(path), fault.problem, fault.remedy)) from fault


def unpickled(data: bytes, *, place: str) -> object:
    """As :func:`load_pickle` for a pickle in memory.

    Args:
        data: The pickle.
        place: Where it comes from, for the problem.

    Raises:
        InputError: As there.
    """
    try:
        return _run(data)
    except FaultError as fault:
        raise InputError(Problem(place, fault.problem, fault.remedy)) from fault


def _run(data: bytes | mmap.mmap) -> object:
    if data[: len(LEGACY_MAGIC)] == LEGACY_MAGIC:
        return read_legacy(data, _ALLOWED)
    return Machine(data, _ALLOWED).run()
