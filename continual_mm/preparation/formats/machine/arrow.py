"""Names in pickles that stand for Arrow's arrays of text, in which pandas 3 keeps its strings."""

from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.preparation.formats.machine.fault import REFERENCE, Budget, FaultError
from continual_mm.preparation.formats.machine.notes import Name, misused

_OFFSETS = {"string": np.dtype("<i4"), "large_string": np.dtype("<i8")}
"""By the name of a type of text: what tells where each string begins."""


def _type(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case (str() as alias,) if alias in _OFFSETS:
            return _OFFSETS[alias]
    raise FaultError("has an Arrow array of what is no text", "save it as .npz or .json yourself")


def _buffer(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case (bytes() | bytearray() as data,):
            return data
    raise misused("pyarrow.lib.py_buffer")


def _array(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case (
            (
                np.dtype() as kind,
                int() as length,
                int(),
                int() as first,
                [valid, bytes() | bytearray() as offsets, bytes() | bytearray() | None as data],
                [],
                None,
            ),
        ):
            if kind in _OFFSETS.values():
                marks = _marks(offsets, kind, first, length)
                missing = _missing(valid, first, length)
                return _strings(marks, data or b"", missing, budget)
    raise misused("pyarrow.lib._restore_array")


def _marks(raw: bytes | bytearray, kind: np.dtype[Any], first: int, length: int) -> list[int]:
    if min(first, length) < 0 or (first + length + 1) * kind.itemsize > len(raw):
        if length == 0:
            return [0]
        raise FaultError(f"has {length} strings, but not where they begin")
    marks: list[int] = np.frombuffer(raw, kind, length + 1, first * kind.itemsize).tolist()
    return marks


def _missing(valid: object, first: int, length: int) -> NDArray[np.bool_]:
    if valid is None:
        return np.zeros(length, dtype=np.bool_)
    if not isinstance(valid, bytes | bytearray) or len(valid) * 8 < first + length:
        raise FaultError(f"has {length} strings, but not which of them are missing")
    begin, end = first // 8, (first + length + 7) // 8
    bits = np.unpackbits(np.frombuffer(valid, np.uint8)[begin:end], bitorder="little")
    missing: NDArray[np.bool_] = bits[first % 8 :][:length] == 0
    return missing


def _strings(
    marks: list[int], data: bytes | bytearray, missing: NDArray[np.bool_], budget: Budget
) -> list[str | None]:
    if marks[0] < 0 or marks[-1] > len(data) or any(end < start for start, end in pairwise(marks)):
        raise FaultError("has strings that lie outside of their text")
    budget.charge(REFERENCE * len(marks) + marks[-1] - marks[0])
    return [
        None if gone else str(data[start:end], "utf-8")
        for (start, end), gone in zip(pairwise(marks), missing, strict=True)
    ]


def _chunked(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case (list(chunks), np.dtype()) if all(isinstance(chunk, list) for chunk in chunks):
            budget.charge(REFERENCE * sum(len(chunk) for chunk in chunks))
            return [text for chunk in chunks for text in chunk]
    raise misused("pyarrow.lib.chunked_array")


ARROW: Mapping[tuple[str, str], Name] = MappingProxyType(
    {
        ("pyarrow.lib", "type_for_alias"): Name("pyarrow.lib.type_for_alias", _type),
        ("pyarrow.lib", "py_buffer"): Name("pyarrow.lib.py_buffer", _buffer),
        ("pyarrow.lib", "_restore_array"): Name("pyarrow.lib._restore_array", _array),
        ("pyarrow.lib", "chunked_array"): Name("pyarrow.lib.chunked_array", _chunked),
    }
)
"""By module and name."""
