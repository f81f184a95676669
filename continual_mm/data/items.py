"""Items, each a dict, as the columns of a dataset."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from continual_mm.system.errors import InputError, Problem, first_few

_COLUMNS = {
    "ids": "ids",
    "split": "split",
    "label": "label",
    "group": "group",
    "text_raw": "text",
}
"""Key of an item -> argument of ``Dataset.from_arrays``."""
_REMEDY = "give tensors or arrays of numbers, all of one shape; pad what is ragged"


class Items(Protocol):
    """What has a length and numbered items, as lists and torch's datasets have."""

    def __len__(self) -> int:
        """How many items."""

    def __getitem__(self, number: int, /) -> Any:
        """An item."""


def columns_of(items: Items, modalities: Sequence[str] | None) -> dict[str, Any]:
    """Arguments of ``Dataset.from_arrays``: arrays, which items have each, and other columns."""
    read = [items[number] for number in range(len(items))]
    if wrong := [str(n) for n, item in enumerate(read) if not isinstance(item, Mapping)]:
        kind = type(read[int(wrong[0])]).__name__
        remedy = "let items be dicts, such as {'video': features, 'text': features}"
        raise InputError.at(f"items {first_few(wrong)}", f"a {kind} is no dict", remedy)
    keys = dict.fromkeys(key for item in read for key in item)
    names = [key for key in keys if key not in _COLUMNS] if modalities is None else modalities
    problems: list[Problem] = []
    arrays, present = {}, {}
    for name in names:
        there = np.array([item.get(name) is not None for item in read])
        problems += _problems(read, name, there)
        if there.any() and not problems:
            arrays[name], present[name] = _array(read, name, there), there
    if not names or problems:
        raise InputError(problems or [Problem("items", "they have no modality", _REMEDY)])
    lacking = {name: there for name, there in present.items() if not there.all()}
    known = {_COLUMNS[key]: [item.get(key) for item in read] for key in _COLUMNS if key in keys}
    return {"arrays": arrays, "present": lacking or None, **known}


def _problems(
    items: Sequence[Mapping[str, Any]], name: str, there: NDArray[np.bool_]
) -> Iterator[Problem]:
    if not there.any():
        yield Problem("items", f"none has {name!r}", _REMEDY)
        return
    shapes = {n: _shape(items[n][name]) for n in np.flatnonzero(there).tolist()}
    first = next(iter(shapes.values()))
    if other := [str(n) for n, shape in shapes.items() if shape != first or shape is None]:
        shown = "no numbers" if (found := shapes[int(other[0])]) is None else f"of shape {found}"
        expected = "" if first is None else f", the first one is of shape {first}"
        yield Problem(f"items {first_few(other)}, {name!r}", f"{shown}{expected}", _REMEDY)


def _shape(value: Any) -> tuple[int, ...] | None:
    try:
        found = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        return None
    return found.shape if found.dtype.kind in "fiub" else None


def _array(items: Sequence[Mapping[str, Any]], name: str, there: NDArray[np.bool_]) -> NDArray[Any]:
    """(items, ...) features, zeros where an item lacks them."""
    rows = np.flatnonzero(there).tolist()
    first = np.asarray(items[rows[0]][name])
    kind = first.dtype if first.dtype in (np.uint8, np.float16, np.float64) else np.float32
    array = np.zeros((len(items), *first.shape), dtype=kind)
    for row in rows:
        array[row] = np.asarray(items[row][name])
    return array
