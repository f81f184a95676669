"""Names in pickles that stand for NumPy's arrays, scalars and dtypes.

NumPy's own ``__setstate__`` takes a dtype at its word, down to where Python objects lie in memory;
here a dtype is a kind, a size and an order of bytes, and an array is that many bytes.
"""

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.preparation.formats.machine.fault import REFERENCE, Budget, FaultError
from continual_mm.preparation.formats.machine.notes import Make, Name, Unfinished, misused
from continual_mm.preparation.formats.machine.plain import raw_bytes

_CORES = ("numpy.core", "numpy._core")
"""The package's name before NumPy 2 and since."""

_CODE = re.compile(r"[<>|=]?([?biufcSU])(\d{0,9})")
_SIZES = {"?": 1, "b": 1, "i": 8, "u": 8, "f": 16, "c": 32, "S": 1 << 24, "U": 1 << 24}
"""The largest size of each kind of dtype, in the dtype's own unit."""

_OBJECT = re.compile(r"\|?O[48]?")
_AXES_AT_MOST = 32


def _dtype(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case (str() as code, *_) if len(arguments) <= 3:
            described = _described(code)
            return Unfinished("numpy.dtype", lambda budget, state: _ordered(described, state))
    raise misused("numpy.dtype")


def _described(code: str) -> np.dtype[Any]:
    if _OBJECT.fullmatch(code):
        return np.dtype(object)
    match = _CODE.fullmatch(code)
    if match is None or int(match[2] or 1) > _SIZES[match[1]]:
        raise FaultError(
            f"has an array of dtype {code[:40]!r}",
            "numbers, truth values and text are read; load and save it yourself",
        )
    return np.dtype(code)


def _ordered(dtype: np.dtype[Any], state: object) -> np.dtype[Any]:
    """Give a dtype the byte order that its state names; refuse all else that states can hold."""
    match state:
        case (int(), "<" | ">" | "=" as order, None, None, None, int(), int(), int()):
            return dtype.newbyteorder(order)
        case (int(), "|", None, None, None, int(), int(), int()):
            return dtype
    raise FaultError("has a structured array", "save each of its fields as an array of its own")


def _scalar(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case (np.dtype() as dtype, bytes() | str() as data) if not dtype.hasobject:
            raw = raw_bytes(data, budget)
            if dtype.itemsize == 0:
                return dtype.type()
            return _filled(dtype, (), raw)[()]
    raise misused("numpy's scalar")


def _unfilled(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case (Name(text="numpy.ndarray"), tuple(), bytes() | str()):
            return Unfinished("numpy.ndarray", _array)
    raise misused("numpy's _reconstruct")


def _array(budget: Budget, state: object) -> NDArray[Any]:
    match state:
        case (int(), tuple() as shape, np.dtype() as dtype, turned, data) | (
            tuple() as shape,
            np.dtype() as dtype,
            turned,
            data,
        ):
            order = "F" if turned else "C"
            if dtype.hasobject:
                return _objects(_sizes(shape), data, order, budget)
            return _filled(dtype, shape, raw_bytes(data, budget), order)
    raise misused("numpy.ndarray")


def _from_buffer(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case (bytes() | bytearray() as data, np.dtype() as dtype, tuple() as shape, "C" | "F"):
            if not dtype.hasobject:
                return _filled(dtype, shape, data, str(arguments[3]))
        case (
            bytes() | bytearray() as data,
            np.dtype() as dtype,
            tuple() as shape,
            "K",
            tuple() as axes,
        ):
            if not dtype.hasobject:
                return _filled(dtype, shape, data).transpose(_sizes(axes))
    raise misused("numpy's _frombuffer")


def _sizes(shape: tuple[object, ...]) -> tuple[int, ...]:
    sizes = tuple(size for size in shape if isinstance(size, int) and size >= 0)
    if len(sizes) != len(shape) or len(sizes) > _AXES_AT_MOST:
        raise FaultError("has an array whose shape is none")
    return sizes


def _filled(
    dtype: np.dtype[Any], shape: tuple[object, ...], data: bytes | bytearray, order: str = "C"
) -> NDArray[Any]:
    """A view of the bytes; read-only where these are."""
    sizes = _sizes(shape)
    if dtype.itemsize == 0 or math.prod(sizes) * dtype.itemsize != len(data):
        claim = f"{dtype} of shape {sizes}"
        raise FaultError(f"has an array of {claim} in {len(data)} bytes")
    array: NDArray[Any] = np.ndarray(sizes, dtype, data, order="F" if order == "F" else "C")
    return array


def _objects(sizes: tuple[int, ...], data: object, order: str, budget: Budget) -> NDArray[Any]:
    if not isinstance(data, list) or len(data) != math.prod(sizes):
        raise FaultError(f"has an array of objects of shape {sizes} without so many objects")
    if any(isinstance(value, np.ndarray) and value.dtype.hasobject for value in data):
        # NumPy frees what is nested deeply in a way that overflows the stack of Python itself.
        raise FaultError("has an array of objects in another", "store lists instead")
    budget.charge(REFERENCE * len(data))
    return np.fromiter(data, dtype=object, count=len(data)).reshape(
        sizes, order="F" if order == "F" else "C"
    )


def _in_cores(module: str, name: str, make: Make) -> dict[tuple[str, str], Name]:
    return {(f"{core}.{module}", name): Name(f"{core}.{module}.{name}", make) for core in _CORES}


ARRAYS: Mapping[tuple[str, str], Name] = MappingProxyType(
    {
        ("numpy", "ndarray"): Name("numpy.ndarray"),
        ("numpy", "dtype"): Name("numpy.dtype", _dtype),
        **_in_cores("multiarray", "_reconstruct", _unfilled),
        **_in_cores("multiarray", "scalar", _scalar),
        **_in_cores("numeric", "_frombuffer", _from_buffer),
    }
)
"""By module and name."""
