"""Names in pickles that stand for pandas' frames, of any version since 0.15: read as columns.

A frame keeps its columns in blocks of one dtype each, (columns, rows), which say whose they are.
Nothing of pandas runs, nor need it be installed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.preparation.formats.machine.fault import REFERENCE, Budget, FaultError
from continual_mm.preparation.formats.machine.notes import Make, Name, Unfinished, misused

Values = NDArray[Any] | list[Any]
_Table = dict[tuple[str, str], Name]

_VIEW = 64
"""Bytes that a column takes at least, beside its values."""

_INDEXES = ("Index", "Int64Index", "Float64Index", "UInt64Index")


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    values: Values
    places: slice | NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class _Manager:
    blocks: tuple[_Block, ...]
    axes: tuple["_Labels", ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Labels:
    values: Sequence[object]


def _frame(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case ():
            return Unfinished("pandas.DataFrame", _columns)
    raise misused("pandas.DataFrame")


def _series(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case ():
            return Unfinished("pandas.Series", _values)
    raise misused("pandas.Series")


def _columns(budget: Budget, state: object) -> object:
    """A dict of one-dimensional columns."""
    manager = _manager_in(state)
    if len(manager.axes) != 2:
        raise misused("pandas.DataFrame")
    names, rows = manager.axes
    columns: dict[str | int, Values] = {}
    for block in manager.blocks:
        places = _places(block.places, len(names.values))
        # Columns of no rows take no bytes in the file, however many they are.
        budget.charge(_VIEW * len(places))
        for place, column in zip(places, _rows_of(block.values, len(places)), strict=True):
            if len(column) != len(rows.values):
                raise FaultError(f"has a frame with a column of {len(column)} rows too many or few")
            columns[_label(names.values[place])] = column
    if len(columns) != len(names.values):
        raise FaultError("has a frame whose columns are not told apart by their names")
    return {_label(name): columns[_label(name)] for name in names.values}


def _values(budget: Budget, state: object) -> object:
    manager = _manager_in(state)
    if len(manager.blocks) != 1 or len(manager.axes) != 1:
        raise misused("pandas.Series")
    values = manager.blocks[0].values
    if len(values) != len(manager.axes[0].values):
        raise FaultError("has a series of another length than its index")
    return values


def _manager_in(state: object) -> _Manager:
    match state:
        case {"_mgr": _Manager() as manager} | {"_data": _Manager() as manager}:
            return manager
        case _Manager():
            return state
    raise misused("pandas' frames")


def _label(name: object) -> str | int:
    if not isinstance(name, str | int):
        raise FaultError(f"has a frame with a column named by a {type(name).__name__}")
    return name


def _places(places: slice | NDArray[Any], columns: int) -> Sequence[int]:
    if isinstance(places, slice):
        return range(columns)[places]
    return [int(place) for place in places]


def _rows_of(values: Values, columns: int) -> Sequence[Values]:
    if isinstance(values, list) or values.ndim == 1:
        return [values]
    if values.ndim != 2 or len(values) != columns:
        raise FaultError("has a frame with blocks of another shape than their columns")
    return list(values)


def _manager(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case ():
            return Unfinished("pandas' BlockManager", _old_manager)
        case ((_Block(), *_) | () as blocks, [_Labels(), *_] as axes):
            return _checked(blocks, axes)
    raise misused("pandas' BlockManager")


def _old_manager(budget: Budget, state: object) -> object:
    match state:
        case (_, _, _, {"0.14.1": {"axes": [_Labels(), *_] as axes, "blocks": [*blocks]}}):
            return _checked([_old_block(block) for block in blocks], axes)
    raise misused("pandas' BlockManager")


def _checked(blocks: Sequence[object], axes: Sequence[object]) -> _Manager:
    sound = tuple(block for block in blocks if isinstance(block, _Block))
    labels = tuple(axis for axis in axes if isinstance(axis, _Labels))
    if len(sound) != len(blocks) or len(labels) != len(axes):
        raise misused("pandas' BlockManager")
    return _Manager(sound, labels)


def _old_block(block: object) -> object:
    match block:
        case {
            "values": list() | np.ndarray() as values,
            "mgr_locs": slice() | np.ndarray() as places,
        }:
            return _Block(values, places)
    raise misused("pandas' blocks")


def _block(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case (list() | np.ndarray() as values, slice() | np.ndarray() as places, *_):
            return _Block(values, places)
    raise misused("pandas' blocks")


def _partial(budget: Budget, arguments: tuple[object, ...]) -> object:
    """Pandas 1.3 makes its blocks with ``functools.partial(new_block, ndim=2)``."""
    match arguments:
        case (Name(text="pandas.core.internals.blocks.new_block") as made,):
            return Unfinished("functools.partial", lambda budget, state: made)
    raise misused("functools.partial")


def _index(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case (Name(), {"data": list() | np.ndarray() as data}):
            budget.charge(REFERENCE * len(data))
            return _Labels(list(data))
        case (Name(), {"start": int() as start, "stop": int() as stop, "step": int() as step}):
            return _Labels(range(start, stop, step))
    raise misused("pandas' indexes")


def _texts(budget: Budget, arguments: tuple[object, ...]) -> object:
    match arguments:
        case (Name(text="pandas' StringArray"), int(), None):
            return Unfinished("pandas' StringArray", _text_objects)
        case ():
            return Unfinished("pandas' ArrowStringArray", _arrow_texts)
    raise misused("pandas' StringArray")


def _text_objects(budget: Budget, state: object) -> object:
    match state:
        case (_, np.ndarray() as values, *_) | (np.ndarray() as values, *_):
            return values
    raise misused("pandas' StringArray")


def _arrow_texts(budget: Budget, state: object) -> object:
    match state:
        case {"_pa_array": list(values)} | {"_data": list(values)}:
            return values
    raise misused("pandas' ArrowStringArray")


def _nothing(budget: Budget, arguments: tuple[object, ...]) -> object:
    return None


def _named(text: str, modules: Sequence[str], name: str, make: Make | None = None) -> _Table:
    return {(module, name): Name(text, make) for module in modules}


_PANDAS = ("pandas",)
_MANAGERS = ("pandas.core.internals.managers", "pandas.core.internals")
_BASES = ("pandas.core.indexes.base", "pandas.indexes.base", "pandas.core.index")
_ELSEWHERE = ("pandas.core.indexes.numeric", "pandas.indexes.numeric")
_RANGES = ("pandas.core.indexes.range", "pandas.indexes.range")
_ARROWS = ("pandas.core.arrays.string_arrow", "pandas.arrays")
_STRINGS = ("pandas.core.arrays.string_", "pandas.arrays")
_NEW_BLOCK = "pandas.core.internals.blocks.new_block"

FRAMES: Mapping[tuple[str, str], Name] = MappingProxyType(
    {
        **_named("pandas.DataFrame", ("pandas.core.frame", *_PANDAS), "DataFrame", _frame),
        **_named("pandas.Series", ("pandas.core.series", *_PANDAS), "Series", _series),
        **_named("pandas' BlockManager", _MANAGERS, "BlockManager", _manager),
        **_named("pandas' BlockManager", _MANAGERS, "SingleBlockManager", _manager),
        **_named("pandas' blocks", ("pandas._libs.internals",), "_unpickle_block", _block),
        **_named(_NEW_BLOCK, ("pandas.core.internals.blocks",), "new_block", _block),
        **_named("functools.partial", ("functools",), "partial", _partial),
        **_named("pandas' _new_Index", _BASES, "_new_Index", _index),
        **{
            key: value
            for name in _INDEXES
            for key, value in _named(f"pandas.{name}", _BASES + _ELSEWHERE + _PANDAS, name).items()
        },
        **_named("pandas.RangeIndex", _RANGES + _PANDAS, "RangeIndex"),
        **_named("pandas' StringArray", _STRINGS, "StringArray"),
        **_named("pandas' ArrowStringArray", _ARROWS, "ArrowStringArray", _texts),
        **_named("pandas.StringDtype", _STRINGS + _PANDAS, "StringDtype", _nothing),
        **_named(
            "pandas' StringArray", ("pandas._libs.arrays",), "__pyx_unpickle_NDArrayBacked", _texts
        ),
    }
)
"""By module and name."""
