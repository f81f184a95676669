"""Pickles, and what ``torch.save`` wrote, read without running anything that is in them."""

import math
import mmap
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from continual_mm.system.errors import InputError, printable

_Target = TypeVar("_Target", list[Any], dict[Any, Any], set[Any])

_ZIP, _LEGACY = b"PK\x03\x04", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How files begin that ``torch.save`` wrote, since torch 1.6 and before."""

_ERRORS = (
    *(ArithmeticError, AttributeError, DeprecationWarning, EOFError, LookupError, MemoryError),
    *(RuntimeError, TypeError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile),
)
"""What damaged bytes raise in Python's unpickler, in NumPy, in torch and in zipfile."""


def load_pickle(path: Path) -> object:
    """Read a pickle, or what ``torch.save`` wrote, without running anything that is in it.

    Containers, scalars, NumPy's arrays (which may be read-only) and torch's tensors, on the CPU,
    come back as they are, subclasses of dict as dicts. Strings of Python 2 have one character per
    byte, since any may be an array's; :func:`clean_text` decodes them. Memory is bounded by a small
    multiple of the file's size. A file that names anything else is an InputError, with its name.
    """
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # escapes that strings do not have
            start = file.read(len(_LEGACY))
            if not start:
                raise _FaultError("is empty", "copy or write it again")
            if not path.is_file():  # such as a pipe, which cannot be mapped
                raise _FaultError("is no file on a disk", "copy it to one")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                if start.startswith(_ZIP):
                    return _load_zip(file, len(data))
                return _load_legacy(data) if start == _LEGACY else _Unpickler(_Stream(data)).load()
    except _ERRORS as error:
        raise InputError.at(path, f"cannot be read ({type(error).__name__})", _DAMAGED) from error
    except OSError as error:
        raise InputError.at(path, f"cannot be opened: {error.strerror or error}") from error
    except _FaultError as fault:
        raise InputError.at(path, fault.message, fault.remedy) from fault


_DAMAGED = "it is damaged, or was made to mislead"


class _FaultError(Exception):
    def __init__(self, message: str, remedy: str = _DAMAGED) -> None:
        super().__init__(message)
        self.message, self.remedy = message, remedy


class _Stream:
    """The bytes of a file from the first to the last; never more than there are."""

    __slots__ = ("_data", "_end", "size")

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self._data, self._end, self.size = data, 0, len(data)

    def read(self, count: int) -> bytes:
        start, self._end = self._end, self._end + count
        if self._end > self.size:
            raise _FaultError("is cut short: it ends in a value", "copy or write it again")
        return self._data[start : self._end]

    def readline(self) -> bytes:
        end = self._data.find(b"\n", self._end)
        return self.read((self.size if end < 0 else end) + 1 - self._end)


@dataclass(frozen=True, slots=True, eq=False)
class _Name:
    """What a pickle handles instead of a function or class; nothing can be reached through it."""

    text: str


@dataclass(slots=True, eq=False)
class _Unfinished:
    """A dtype, or else an array, of which the pickle has yet to give the state."""

    dtype: "np.dtype[Any] | None" = None
    made: object = None


class _Memo(dict[int, object]):
    """Objects that a pickle comes back to; it finds what was unfinished as what it became."""

    def __getitem__(self, place: int) -> object:
        value = super().__getitem__(place)
        return value if not isinstance(value, _Unfinished) or value.made is None else value.made


class _Unpickler(pickle._Unpickler):
    """Python's unpickler, except that it calls nothing and changes only plain containers.

    The original calls what a pickle names, sets the attributes of any object, calls every method
    named ``append``, ``add`` or ``__setstate__``, and reserves as much memory as a length claims.
    This one knows only some names, and gives what their calls are said to give; the values of
    tensors may lie in storages beside the pickle.
    """

    stack: list[Any]
    read: Callable[[int], bytes]
    append: Callable[[object], None]
    pop_mark: Callable[[], list[Any]]

    def __init__(
        self,
        stream: _Stream,
        storages: "_Storages | None" = None,
        names: "Mapping[str, _Make | None] | None" = None,
    ) -> None:
        super().__init__(stream)
        self.memo = _Memo()
        self._storages = storages
        self._names = _NAMES if names is None else names
        self._left = 8 * stream.size + (1 << 20)

    def charge(self, size: int) -> None:
        """Count bytes that are copied: all are in the file, so few are copied unless on purpose."""
        self._left -= size
        if self._left < 0:
            raise _FaultError("asks for far more memory than its size explains")

    def find_class(self, module: str, name: str) -> _Name:
        text = f"{_MODULES.get(module, module)}.{name}"
        if text not in self._names:
            remedy = "save its arrays as .npz and its text as .json, where the file is yours"
            name = printable(f"{module}.{name}")
            raise _FaultError(f"names {name}, which is not opened: it could run anything", remedy)
        return _Name(text)

    def persistent_load(self, pid: object) -> Tensor:
        if self._storages is None:
            raise _FaultError("asks for an object that is kept elsewhere")
        return self._storages.get(pid)

    def _decode_string(self, value: bytes) -> str:
        return value.decode() if value.isascii() else _Python2Text(value, "latin-1")

    def _instantiate(self, function: object, arguments: object) -> None:
        """Put on the stack what a call gives."""
        made: object = NotImplemented
        if isinstance(function, _Name) and isinstance(arguments, tuple | list):
            make = self._names[function.text] or (lambda reader, call: NotImplemented)
            made = make(self, (function.text.rpartition(".")[2], *arguments))
        if made is NotImplemented:
            raise _FaultError(f"calls {_kind(function)} in a way that no honest file does")
        self.append(made)

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self._instantiate(self.stack.pop(), arguments)

    load_newobj = load_reduce

    def load_newobj_ex(self) -> None:
        if self.stack.pop() != {}:
            raise _FaultError("makes an object with keywords")
        self.load_reduce()

    def load_build(self) -> None:
        state, unfinished = self.stack.pop(), self.stack.pop()
        if not isinstance(unfinished, _Unfinished) or unfinished.made is not None:
            raise _FaultError(f"sets the state of a {_kind(unfinished)}")
        dtype = unfinished.dtype
        unfinished.made = _array(self, state) if dtype is None else _ordered(dtype, state)
        self.append(unfinished.made)

    def _target(self, kind: type[_Target]) -> _Target:
        """The container that is changed next."""
        target = self.stack[-1]
        if type(target) is not kind:
            raise _FaultError(f"changes a {_kind(target)} as if it was a {kind.__name__}")
        return target

    def load_append(self) -> None:
        value = self.stack.pop()
        self._target(list).append(value)

    def load_appends(self) -> None:
        values = self.pop_mark()
        self._target(list).extend(values)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._target(dict).update(_items([key], [value]))

    def load_setitems(self) -> None:
        values = self.pop_mark()
        self._target(dict).update(_items(values[::2], values[1::2]))

    def load_dict(self) -> None:
        values = self.pop_mark()
        self.append(_items(values[::2], values[1::2]))

    def load_additems(self) -> None:
        values = self.pop_mark()
        self._target(set).update(_keys(values))

    def load_frozenset(self) -> None:
        values = self.pop_mark()  # first, since it changes where to append
        self.append(frozenset(_keys(values)))

    def load_bytearray8(self) -> None:
        self.append(bytearray(self.read(struct.unpack("<Q", self.read(8))[0])))

    def load_frame(self) -> None:
        self.read(8)

    def load_next_buffer(self) -> None:
        raise _FaultError("keeps its arrays outside of the file")

    load_readonly_buffer = load_next_buffer

    def get_extension(self, code: int) -> None:
        raise _FaultError("calls by a number of copyreg's extension registry")


_Unpickler.dispatch = {
    code: getattr(_Unpickler, load.__name__) for code, load in pickle._Unpickler.dispatch.items()
}


def _kind(value: object) -> str:
    return value.text if isinstance(value, _Name) else type(value).__name__.strip("_")


def _keys(values: Iterable[object]) -> Iterable[object]:
    """Pass on what may be the key of a dict or element of a set: what no many others hash like.

    Any number of tuples, or of numbers beyond 64 bits, hash alike; n of them take n * n steps.
    """
    for value in values:
        wide = isinstance(value, np.longdouble) or (
            isinstance(value, int) and value.bit_length() > 64
        )
        if wide or not isinstance(value, _KEYS):
            problem = f"has a {_kind(value)} as the key of a dict or element of a set"
            raise _FaultError(problem, "write it with keys of text, where the file is yours")
        yield value


_KEYS = (str, bytes, int, float, type(None), np.integer, np.floating, np.character, np.bool_)


def _items(keys: Iterable[object], values: Iterable[object]) -> dict[object, object]:
    return dict(zip(_keys(keys), values, strict=True))


_Call = tuple[Any, ...]
"""The last part of a function's name and the arguments, of which none can be trusted."""

_Make = Callable[[_Unpickler, _Call], object]
"""What a call gives; NotImplemented for arguments that it does not take."""


def _plain(reader: _Unpickler, call: _Call) -> object:
    match call:
        case ("bytes",):
            return b""
        case ("bytearray",):
            return bytearray()
        case ("bytes", bytes(data)):
            return data
        case ("bytearray", bytes() | bytearray() as data):
            reader.charge(len(data))
            return bytearray(data)
        case ("bytearray" | "encode" as name, str(text), "latin1" | "latin-1"):
            raw = _raw(reader, text)
            return bytearray(raw) if name == "bytearray" else raw
    return NotImplemented


def _raw(reader: _Unpickler, data: bytes | str) -> bytes:
    """Bytes, given as such or as a string of Python 2."""
    if isinstance(data, bytes):
        return data
    reader.charge(len(data))
    return data.encode("latin-1")


def _container(reader: _Unpickler, call: _Call) -> object:
    values = call[1] if len(call) == 2 and isinstance(call[1], list) else []
    reader.charge(8 * len(values))
    match call:
        case ("defaultdict",) | ("defaultdict", _Name() | None):
            return {}
        case ("set",) | ("set", list()):
            return set(_keys(values))
        case ("frozenset",) | ("frozenset", list()):
            return frozenset(_keys(values))
        case ("OrderedDict",) | ("OrderedDict", list()):
            return _items((key for key, _ in values), (value for _, value in values))
    return NotImplemented


def _numpy(reader: _Unpickler, call: _Call) -> object:
    match call:
        case ("dtype", str(code), *_):
            return _Unfinished(_dtype(code))
        case ("_reconstruct", _Name(text="numpy.ndarray"), tuple(), bytes() | str()):
            return _Unfinished()
        case ("scalar", np.dtype() as dtype, bytes() | str() as data):
            raw = _raw(reader, data)
            return _filled(dtype, (), raw)[()] if dtype.itemsize else dtype.type()
        case (
            "_frombuffer",
            bytes() | bytearray() as data,
            np.dtype() as dtype,
            tuple(shape),
            str(order),
            *axes,
        ):
            array = _filled(dtype, shape, data, "F" if order == "F" else "C")
            return array.transpose(_sizes(*axes)) if order == "K" else array
    return NotImplemented


_DTYPE = re.compile(r"[<>|=]?[?biufcSU]\d{0,7}|\|?O[48]?")


def _dtype(code: str) -> np.dtype[Any]:
    if not _DTYPE.fullmatch(code):
        problem = f"has an array of dtype {printable(code)}"
        raise _FaultError(problem, "numbers and text are read; load and save it yourself")
    return np.dtype("O" if "O" in code else code)


def _ordered(dtype: np.dtype[Any], state: object) -> np.dtype[Any]:
    """Give a dtype the byte order of its state; NumPy would take the rest of it at its word."""
    match state:
        case (int(), "<" | ">" | "=" as order, None, None, None, int(), int(), int()):
            return dtype.newbyteorder(order)
        case (int(), "|", None, None, None, int(), int(), int()):
            return dtype
    raise _FaultError("has a structured array", "save each of its fields as an array of its own")


def _array(reader: _Unpickler, state: object) -> NDArray[Any]:
    match state:
        case (int(), tuple(shape), np.dtype() as dtype, int(fortran), bytes() | str() as data):
            return _filled(dtype, shape, _raw(reader, data), "F" if fortran else "C")
        case (int(), tuple(shape), np.dtype(hasobject=True), int(fortran), list(objects)):
            if any(isinstance(one, np.ndarray) and one.dtype.hasobject for one in objects):
                # NumPy frees what is nested by recursion, which would overflow Python's own stack.
                raise _FaultError("has an array of objects in another", "store lists instead")
            reader.charge(8 * len(objects))
            array = np.fromiter(objects, dtype=object, count=len(objects))
            return array.reshape(_sizes(shape), order="F" if fortran else "C")
    raise _FaultError("has an array in a state that no honest file has")


def _sizes(shape: tuple[Any, ...]) -> tuple[int, ...]:
    if not all(type(size) is int and size >= 0 for size in shape):
        raise _FaultError("has an array or a tensor whose shape is none")
    return shape


def _filled(
    dtype: np.dtype[Any],
    shape: tuple[Any, ...],
    data: bytes | bytearray,
    order: Literal["C", "F"] = "C",
) -> NDArray[Any]:
    """Bytes as an array, which is read-only where these are."""
    size = math.prod(_sizes(shape)) * dtype.itemsize
    if dtype.hasobject or not dtype.itemsize or size != len(data):
        raise _FaultError(f"has an array of {dtype} of shape {shape} in {len(data)} bytes")
    return np.ndarray(shape, dtype, data, order=order)


class _Storages:
    """The values of tensors, beside their pickle; ``read`` takes a storage's name and size.

    Torch itself reserves whatever a file claims to hold, and gives out memory that it never fills;
    here all storages together are no larger than the file.
    """

    def __init__(self, size: int, read: Callable[[str, int], bytearray]) -> None:
        self._left, self._read = size, read
        self.memory: dict[str, bytearray] = {}
        self.values: dict[str, Tensor] = {}

    def get(self, claim: object) -> Tensor:
        """The values, (count,), that a pickle describes."""
        match claim:
            case ("storage", _Name(text=kind), str(key), str(), int(count), *_) if count >= 0:
                dtype = _STORAGES[kind]
                if key not in self.values:
                    self._make(key, dtype, count * dtype.itemsize)
                values = self.values[key]
                if values.dtype == dtype and len(values) == count:
                    return values
        raise _FaultError("has a tensor whose values are not described as torch does it")

    def _make(self, key: str, dtype: torch.dtype, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise _FaultError(_TOO_LARGE)
        memory = self.memory[key] = self._read(key, size)
        if len(memory) != size:
            raise _FaultError(_OTHER_SIZE)
        empty = torch.empty(0, dtype=dtype)
        self.values[key] = torch.frombuffer(memory, dtype=dtype) if memory else empty


_OTHER_SIZE = "has a tensor of another size than its values"
_TOO_LARGE = "claims to hold more than its size"


def _load_zip(file: IO[bytes], size: int) -> object:
    """What ``torch.save`` wrote since torch 1.6: a pickle, and a file for each storage."""
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.count("/") == 1]
        folders = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
        if len(folders) != 1:
            raise _FaultError("is a zip archive that torch.save did not write", "give a pickle")

        def read(name: str) -> bytes:
            member = archive.getinfo(folders[0] + name)
            # Torch compresses nothing; what is compressed is there to grow without bounds.
            if member.compress_type != zipfile.ZIP_STORED:
                raise _FaultError("is compressed, which torch.save never does", "write it again")
            if member.compress_size > size:
                raise _FaultError(_TOO_LARGE)
            return archive.read(member)

        if f"{folders[0]}byteorder" in names and read("byteorder") != b"little":
            raise _FaultError("was written on a big-endian machine", "load and save it yourself")
        storages = _Storages(size, lambda key, _: bytearray(read(f"data/{key}")))
        return _Unpickler(_Stream(read("data.pkl")), storages).load()


def _load_legacy(
    data: bytes | mmap.mmap, names: "Mapping[str, _Make | None] | None" = None
) -> object:
    """What ``torch.save`` wrote before torch 1.6: pickles, and behind them the storages."""
    stream = _Stream(data)
    _, version, machine = (_Unpickler(stream, names={}).load() for _ in range(3))
    if version != 1001 or not isinstance(machine, dict) or machine["little_endian"] is not True:
        raise _FaultError("is of a form of torch.save that is not read", "load and save it again")
    storages = _Storages(len(data), lambda _, size: bytearray(size))
    found = _Unpickler(stream, storages, names).load()
    keys = _Unpickler(stream, names={}).load()
    if not isinstance(keys, list) or set(keys) != set(storages.memory):
        raise _FaultError("has tensors without values")
    for key in keys:
        if struct.unpack("<q", stream.read(8)) != (len(storages.values[key]),):
            raise _FaultError(_OTHER_SIZE)
        storages.memory[key][:] = stream.read(len(storages.memory[key]))
    return found


def _torch(reader: _Unpickler, call: _Call) -> object:
    match call:
        case ("_load_from_bytes", bytes(data)) if data.startswith(_LEGACY):
            reader.charge(len(data))
            values = _load_legacy(data, dict.fromkeys(_STORAGES))
            return values if isinstance(values, Tensor) else NotImplemented
        case (
            "_rebuild_tensor" | "_rebuild_tensor_v2",
            Tensor(ndim=1) as values,
            int(offset),
            tuple(shape),
            tuple(strides),
            *_,
        ):
            return _tensor(values, offset, _sizes(shape), _sizes(strides))
        case ("_rebuild_parameter", Tensor() as tensor, *_):
            return tensor
        case ("Size", tuple(shape)):
            return _sizes(shape)
    return NotImplemented


def _tensor(flat: Tensor, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Tensor:
    """A view of values that are all there, each of them once."""
    count = math.prod(shape)
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    # NumPy takes no shape that claims more on its other axes, though one of them is empty.
    claimed = math.prod(max(size, 1) for size in shape)
    if offset < 0 or count > len(flat) or (count and last >= len(flat)) or claimed > 1 << 48:
        raise _FaultError(f"has a tensor of shape {shape} in a storage of {len(flat)} values")
    view: Tensor = flat.as_strided(shape, strides, offset) if count else flat[:0].reshape(shape)
    return view


_MODULES = {
    "__builtin__": "builtins",
    "numpy._core.multiarray": "numpy.core.multiarray",
    "numpy._core.numeric": "numpy.core.numeric",
}
"""Modules of Python 2 and of NumPy 2 -> what they are called here."""

_STORAGES = {
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

_MULTIARRAY = "numpy.core.multiarray"

_NAMES: Mapping[str, _Make | None] = MappingProxyType(
    {
        **dict.fromkeys(("builtins.bytes", "builtins.bytearray", "_codecs.encode"), _plain),
        **dict.fromkeys(("builtins.set", "builtins.frozenset"), _container),
        **dict.fromkeys(("collections.OrderedDict", "collections.defaultdict"), _container),
        **dict.fromkeys(("numpy.dtype", "numpy.core.numeric._frombuffer"), _numpy),
        **dict.fromkeys((f"{_MULTIARRAY}._reconstruct", f"{_MULTIARRAY}.scalar"), _numpy),
        **dict.fromkeys(("torch._utils._rebuild_tensor", "torch.Size"), _torch),
        **dict.fromkeys(
            ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"), _torch
        ),
        "torch.storage._load_from_bytes": _torch,
        **dict.fromkeys(("numpy.ndarray", *_STORAGES)),
        **dict.fromkeys(f"builtins.{name}" for name in ("dict", "float", "int", "list", "str")),
    }
)
"""All that a pickle may name, and what a call of it gives; None for what may only be named."""


class _Python2Text(str):
    """A string of Python 2 with bytes beyond ASCII: one character per byte, text or not."""

    __slots__ = ()


def python2_text(text: str) -> str:
    r"""A text that people read: a string of Python 2 is UTF-8 where it can be, else latin-1."""
    if not isinstance(text, _Python2Text):
        return text
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return str(text)


def clean_text(text: str) -> str:
    r"""A text as UTF-8 can hold it; strings of Python 2 are read as text, pickled halves joined."""
    whole = python2_text(text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return whole.replace("\0", "\N{REPLACEMENT CHARACTER}")
