"""Names in pickles that stand for plain containers and scalars."""

from collections.abc import Mapping
from types import MappingProxyType

from continual_mm.preparation.formats.machine.fault import REFERENCE, Budget, FaultError
from continual_mm.preparation.formats.machine.keys import elements
from continual_mm.preparation.formats.machine.notes import Make, Name, misused

_BUILTINS = ("builtins", "__builtin__")
"""The module's name in Python 3 and in Python 2."""


def _encoded(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case (str(text), "latin1" | "latin-1"):
            return raw_bytes(text, budget)
    raise misused("_codecs.encode")


def raw_bytes(data: object, budget: Budget) -> bytes | bytearray:
    """Bytes, given as such or as a string of Python 2.

    Raises:
        FaultError: If it is neither.
    """
    if isinstance(data, bytes | bytearray):
        return data
    if not isinstance(data, str):
        raise FaultError(f"has a {type(data).__name__} where bytes belong")
    budget.charge(len(data))
    try:
        return data.encode("latin-1")
    except UnicodeEncodeError:
        raise FaultError("has text where bytes belong") from None


def _bytes(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case ():
            return b""
        case (bytes(data),):
            return data
    raise misused("bytes")


def _bytearray(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case ():
            return bytearray()
        case (bytes() | bytearray() as data,) | (str() as data, "latin-1" | "latin1"):
            budget.charge(len(data))
            return bytearray(raw_bytes(data, budget))
    raise misused("bytearray")


def _complex(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case (float(real), float(imaginary)):
            return complex(real, imaginary)
    raise misused("complex")


def _slice(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case (int() | None as start, int() | None as stop, int() | None as step):
            return slice(start, stop, step)
    raise misused("slice")


def _set(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case ():
            return set()
        case (list(values),):
            budget.charge(REFERENCE * len(values))
            return set(elements(values))
    raise misused("set")


def _frozenset(budget: Budget, arguments: tuple[object, ...]) -> object:
    made = _set(budget, arguments)
    return frozenset(made) if isinstance(made, set) else made


def _ordered(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case ():
            return {}
        case (list(items),):
            budget.charge(REFERENCE * len(items))
            return dict(_pair(item) for item in items)
    raise misused("OrderedDict")


def _pair(item: object) -> tuple[object, object]:
    match item:
        case [key, value]:
            return next(iter(elements([key]))), value
    raise misused("OrderedDict")


def _default(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case () | (Name() | None,):
            return {}
    raise misused("defaultdict")


def _reconstructed(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case (Name() as made, Name(text="object"), None):
            return made.called(budget, ())
    raise misused("copyreg._reconstructor")


def _builtin(name: str, make: Make | None = None) -> dict[tuple[str, str], Name]:
    return {(module, name): Name(name, make) for module in _BUILTINS}


PLAIN: Mapping[tuple[str, str], Name] = MappingProxyType(
    {
        **_builtin("bytes", _bytes),
        **_builtin("bytearray", _bytearray),
        **_builtin("complex", _complex),
        **_builtin("slice", _slice),
        **_builtin("set", _set),
        **_builtin("frozenset", _frozenset),
        **_builtin("object"),
        **_builtin("list"),
        **_builtin("dict"),
        **_builtin("int"),
        **_builtin("float"),
        **_builtin("str"),
        ("_codecs", "encode"): Name("_codecs.encode", _encoded),
        ("collections", "OrderedDict"): Name("collections.OrderedDict", _ordered),
        ("collections", "defaultdict"): Name("collections.defaultdict", _default),
        ("copyreg", "_reconstructor"): Name("copyreg._reconstructor", _reconstructed),
        ("copy_reg", "_reconstructor"): Name("copy_reg._reconstructor", _reconstructed),
    }
)
"""By module and name; an ``OrderedDict`` or ``defaultdict`` is read as a dict."""
