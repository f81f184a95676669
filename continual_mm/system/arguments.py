"""Arguments of the wrong type, refused in a sentence that says what was expected instead."""

import inspect
import os
import re
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, wraps
from numbers import Integral, Real
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from continual_mm.system.errors import InputError, Problem

_Given = ParamSpec("_Given")
_Made = TypeVar("_Made")
_Class = TypeVar("_Class", bound=type)

HOW: Mapping[str, str] = MappingProxyType(
    {
        "Dataset": "make one with continual_mm.Dataset.from_arrays({'video': array, ...}) or, of "
        "items that are dicts, from_items(items); or read one with "
        "continual_mm.read_pack('clips.npz') or read_store('folder')",
        "DatasetCard": "make a dataset with continual_mm.Dataset.from_arrays({'video': array}), or "
        "read one with continual_mm.read_pack('clips.npz')",
        "Scenario": "make one with continual_mm.Scenario(name='mine', "
        "stages=(continual_mm.Stage(add=('video', 'audio')),)), or take one from a file with "
        "continual_mm.load_scenario('mine.toml')",
        "Strategy": "make one with continual_mm.Strategy(name='replay', "
        "memory=continual_mm.MemorySettings(items=128), plugins={'replay': {'weight': 1.0}}), or "
        "take one with continual_mm.load_strategy('replay')",
        "BaseSGDPlugin": "give objects, such as continual_mm.Replay(weight=1.0)",
        "Module": "give a torch.nn.Module; a tower of a registered name belongs into the scenario, "
        "towers={'video': continual_mm.TowerSettings(kind='identity')}",
        "JointSpace": "take history.space of a training, or continual_mm.open_run('runs/...')",
        "Path": "give the path of a file or folder",
        "Kind": "take continual_mm.Kind.VECTOR, TOKENS, SPECTROGRAM or FRAMES",
        "Modality": "make one with continual_mm.Modality('video', Kind.VECTOR, (512,))",
    }
)
"""Name of a class -> how a user comes by an object of it."""

_MODULES = re.compile(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z_])")  # what stands in front of a class
_ARRAYS = re.compile(  # what numpy.typing.ArrayLike is written out as
    r"(?:typing\.)?Union\[[\w.]*_Buffer, .*?complex \| bytes \| str\](, NoneType)?\]"
)
_MOST = 1000  # elements of a list, or of a table, that are looked at
_NAMES = {int: "whole number", float: "number", str: "text", bool: "True or False"}
_NUMBERS = {int: Integral, float: Real}


def checked_arguments(function: Callable[_Given, _Made]) -> Callable[_Given, _Made]:
    """Check the arguments of each call by the function's annotations.

    What is written there in words of :mod:`typing` that nothing can be an instance of, such as a
    protocol, is not checked, and neither is what an iterator would give.
    """

    @wraps(function)
    def guarded(*args: _Given.args, **kwargs: _Given.kwargs) -> _Made:
        given = _bound(function, args, kwargs)
        hints = _hints(function)
        if problems := [
            _problem(function, name, value, hints[name])
            for name, value in given.items()
            if name in hints and not fits(value, hints[name])
        ]:
            raise InputError(problems)
        return function(*args, **kwargs)

    vars(guarded)["__signature__"] = readable(inspect.signature(function))
    return guarded


class _Words:
    """Words in the place of an annotation; ``help`` shows them as they are."""

    def __init__(self, words: str) -> None:
        self._words = words

    def __repr__(self) -> str:
        return self._words


def readable(signature: inspect.Signature) -> inspect.Signature:
    """The same signature as ``help`` shows it best: names of classes without their modules."""

    def words(hint: Any) -> Any:
        if hint is inspect.Signature.empty:
            return hint
        text = hint if isinstance(hint, str) else inspect.formatannotation(hint)
        text = _ARRAYS.sub(lambda found: f"ArrayLike{' | None' * bool(found[1])}", text)
        return _Words(_MODULES.sub("", text).strip("'"))

    parameters = [
        one.replace(
            annotation=words(one.annotation),
            default=_Words("{}") if one.default == MappingProxyType({}) else one.default,
        )
        for one in signature.parameters.values()
    ]
    result = words(signature.return_annotation)
    return signature.replace(parameters=parameters, return_annotation=result)


def checked_class(made: _Class) -> _Class:
    """Check what objects of a class are made of, as :func:`checked_arguments` does."""
    made.__init__ = checked_arguments(made.__init__)  # type: ignore[misc]
    return made


def _bound(function: Callable[..., Any], args: Any, kwargs: Any) -> dict[str, Any]:
    """Name of each parameter that is given -> its value; Python itself says what is missing."""
    try:
        return inspect.signature(function).bind(*args, **kwargs).arguments
    except TypeError:
        return {}


@cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Name -> annotation of the parameters that have one which can be known here."""
    names = vars(sys.modules[function.__module__])
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        hint = parameter.annotation
        if isinstance(hint, str):  # of a class that is imported for type checkers alone
            hint = names.get(hint, Any)
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if hint is not parameter.empty and not variadic:
            found[name] = hint
    return found


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is what an annotation asks for, as far as that can be told.

    >>> fits(3, float), fits(True, int), fits("a", list[str] | None), fits(["a", 3], list[str])
    (True, False, False, False)
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, each) for each in inner)
    if origin is Literal:
        return any(value == each and type(value) is type(each) for each in inner)
    if origin is Annotated:
        return fits(value, inner[0])
    if hint is None:
        return value is None
    if getattr(origin, "__module__", "").startswith("numpy._typing"):
        return True  # whatever numpy makes an array of, which it says itself
    if isinstance(origin, type):
        return _of_collection(value, origin, inner)
    return _of_class(value, hint) if isinstance(hint, type) else True


def _of_class(value: Any, kind: type) -> bool:
    if kind in _NUMBERS:
        return isinstance(value, _NUMBERS[kind]) and not isinstance(value, bool)
    try:
        return isinstance(value, kind)
    except TypeError:  # a protocol
        return True


def _of_collection(value: Any, origin: type, inner: tuple[Any, ...]) -> bool:
    if origin is type:
        return isinstance(value, type)
    if isinstance(value, str | bytes) or not _of_class(value, origin):
        return False
    if isinstance(value, Mapping):
        some = list(value.items())[:_MOST]
        return len(inner) != 1 and all(
            fits(key, inner[0]) and fits(each, inner[1]) for key, each in some if inner
        )
    whole = origin is not Iterable and (origin is not tuple or inner[-1:] == (Ellipsis,))
    if isinstance(value, Sequence) and inner and whole:
        return all(fits(each, inner[0]) for each in value[:_MOST])
    return True


def _problem(function: Callable[..., Any], name: str, value: Any, hint: Any) -> Problem:
    place = f"{function.__qualname__.removesuffix('.__init__')}({name}=...)"
    one_of = "none of" if get_origin(hint) is Literal else "no"
    return Problem(place, f"{_described(value)} is {one_of} {expected(hint)}", _remedy(hint))


def _described(value: Any) -> str:
    kind = type(value).__name__
    if value is None or isinstance(value, type):
        return f"{value}" if value is None else f"the class {value.__name__}"
    article = "an" if kind[:1].lower() in "aeio" else "a"
    if isinstance(value, str | int | float):
        return f"{value!r:.60}"
    if isinstance(value, Mapping | list | tuple) and len(repr(value)) <= 60:
        return f"{value!r}"
    return f"{article} {kind}"


def expected(hint: Any) -> str:
    """What an annotation asks for, in words.

    >>> expected(list[str] | None), expected(Mapping[str, int]), expected(Literal["a", "b"])
    ('list of text or None', 'mapping of text to whole number', "'a', 'b'")
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(expected, inner)))
    if origin is Literal:
        return ", ".join(map(repr, inner))
    if origin is Annotated:
        return expected(inner[0])
    if origin is Callable:
        return "function"
    if isinstance(origin, type) and origin is not os.PathLike:
        of = [expected(each) for each in inner if each not in (Ellipsis, Any)]
        known = origin.__module__ in ("builtins", "collections.abc")
        name = origin.__name__.lower() if known else origin.__name__
        return " of ".join([name, *([" to ".join(of)] if of and known else [])])
    if os.PathLike in (origin, hint) or hint is Path:
        return "path"
    if hint in (None, type(None)):
        return "None"
    return _NAMES.get(hint, getattr(hint, "__name__", str(hint)))


def _remedy(hint: Any) -> str:
    """How to come by what is expected; the first class in the annotation decides."""
    name = getattr(get_origin(hint) or hint, "__name__", "")
    if name in HOW:
        return HOW[name]
    return next((found for each in get_args(hint) if (found := _remedy(each))), "")
