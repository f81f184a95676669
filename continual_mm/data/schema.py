"""The columns of a feature pack: which are modalities, of which kind, and which describe items.

What they mean is concluded from names, dtypes and shapes, so that a card needs no array.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.archive import Header
from continual_mm.data.findings import Findings
from continual_mm.definitions.modality import SPLITS, Kind, Modality, Presence
from continual_mm.system.errors import first_few

Record = dict[str, object]
"""One item, by column of a feature pack: ``ids``, ``split``, ``group`` (a name), ``label``,
``text_raw``, and for each modality that it has a float array, (features,) or (time, features)."""

KIND, LENGTH, PRESENT = "_kind", "_length", "_present"
"""A modality's own columns are its name with one of these endings."""

SPLIT_NUMBERS = "0 is training, 1 validation, 2 test"
"""The remedy where the split column holds another number, or a split has no item."""

NOT_GIVEN = -1
"""The number in ``label`` and ``group`` of an item that has none; a text is then empty."""

CAPTIONS = ("caption", "sentence", "description", "transcript")
"""What columns of captions are called elsewhere."""

PICTURE = "picture"
"""The items' thumbnails: (items, height, width) grey, or (items, height, width, 3) RGB, uint8."""

_WORDS, _WHOLE_NUMBERS, _TRUTHS = ("U",), ("i", "u"), ("b",)
_DTYPE_NAMES = {_WORDS: "unicode", _WHOLE_NUMBERS: "integers", _TRUTHS: "bool"}
_NULLABLE = ("group", "label")  # columns of numbers that an item may lack

ITEM_COLUMNS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ids": _WORDS,
        "split": _WHOLE_NUMBERS,
        "group": _WHOLE_NUMBERS,
        "label": _WHOLE_NUMBERS,
        "text_raw": _WORDS,
        PICTURE: ("u",),
    }
)
"""The columns that describe items, and the kinds of dtype each may have."""

_ENDINGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {KIND: _WORDS, LENGTH: _WHOLE_NUMBERS, PRESENT: _TRUTHS}
)
_AXES = {Kind.VECTOR: "one axis", Kind.FRAMES: "two or more axes"}
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


Shaped = Header | NDArray[Any]  # an array, or what a file says about one


@dataclass(frozen=True, slots=True)
class Schema:
    """What the columns of a source mean: modalities without problem, and columns worth reading."""

    modalities: tuple[Modality, ...]
    used: tuple[str, ...]
    ignored: Mapping[str, str] = field(default_factory=dict)  # other columns, and why

    @property
    def notes(self) -> tuple[str, ...]:
        """What nobody may expect of the columns."""
        ignored = [f"{name} ({reason})" for name, reason in self.ignored.items()]
        return (f"columns that are not used: {first_few(ignored)}",) if ignored else ()

    @property
    def all_rows(self) -> tuple[str, ...]:
        """Names of tokens without a kind or lengths of their own: all items have all rows."""
        return tuple(
            one.name
            for one in self.modalities
            if one.kind is Kind.TOKENS
            and one.shape[0] > 1
            and not {one.name + KIND, one.name + LENGTH} & set(self.used)
        )


def read_schema(
    columns: Mapping[str, Shaped],
    kinds: Mapping[str, str],
    findings: Findings,
    *,
    claimed: Collection[str] = (),
) -> Schema:
    """Sort columns into modalities, descriptions of items, and the rest, which is ignored.

    A modality holds floats (or uint8 pixels) of at least two axes and one row per item; one that
    misses the number of items by a tenth or less is a faulty one. ``kinds`` are the texts of
    ``<modality>_kind`` columns; ``claimed`` are modalities whatever they look like.
    """
    _check_endings(columns, findings)
    counts = (columns[name].shape for name in ("ids", "split") if name in columns)
    rows = next((shape[0] for shape in counts if len(shape) == 1), None)
    for name in ("ids", "split"):
        if name not in columns and name not in findings.faulty:
            findings.about(name, "is missing", "a pack names its items and says their split")
    if rows == 0 and columns.keys() - ITEM_COLUMNS.keys():
        findings.about_source("has no items")
        return Schema((), ())
    if rows is None:
        return Schema((), ())
    _check_item_columns(columns, rows, findings)
    found = (
        _modality(name, columns, rows, kinds, findings, claimed)
        for name in columns
        if not is_taken(name)
    )
    modalities = tuple(modality for modality in found if modality is not None)
    if not modalities and findings.faulty <= ITEM_COLUMNS.keys():
        findings.about_source(*_nothing_to_learn_from(columns, rows))
    names = {modality.name for modality in modalities}
    wanted = [*ITEM_COLUMNS, *(name + ending for name in names for ending in _ENDINGS), *names]
    used = (name for name in columns if name in wanted and name not in findings.faulty)
    ignored = {
        name: _why_ignored(column, rows)
        for name, column in columns.items()
        if name not in wanted and name not in findings.faulty
    }
    return Schema(modalities, tuple(used), ignored)


def split_ending(name: str) -> tuple[str, str] | None:
    """The modality and the ending, if this is a modality's own column."""
    for ending in _ENDINGS:
        if name.endswith(ending) and name != ending:
            return name.removesuffix(ending), ending
    return None


def is_taken(name: str) -> bool:
    """Whether a column of this name, such as ``label``, is something else than a modality."""
    return name in ITEM_COLUMNS or split_ending(name) is not None


def is_given(value: object) -> bool:
    """Whether a cell holds anything: not None, nor NaN, which tables of numbers have instead."""
    return value is not None and not (isinstance(value, float | np.floating) and np.isnan(value))


def with_own_groups(group: NDArray[np.signedinteger[Any]]) -> NDArray[np.int64]:
    """(items,) groups, where each item without one is a group by itself.

    >>> with_own_groups(np.array([-1, 4, 4, -1])).tolist()
    [5, 4, 4, 6]
    """
    found, alone = group.astype(np.int64), group == NOT_GIVEN
    found[alone] = found.max(initial=NOT_GIVEN) + 1 + np.arange(alone.sum())
    return found


def natural_kind(axes: int) -> Kind:
    """The kind of an item with so many axes where nothing says otherwise."""
    return {1: Kind.VECTOR, 2: Kind.TOKENS}.get(axes, Kind.FRAMES)


def _check_endings(columns: Mapping[str, Shaped], findings: Findings) -> None:
    for name in columns:
        modality, ending = split_ending(name) or (name, "")
        unknown = modality not in columns and modality not in findings.faulty
        if ending and (unknown or modality in ITEM_COLUMNS):
            problem = f"describes {modality!r}, which is no modality in here"
            remedy = f"add the column {modality!r}, or rename this one if it means something else"
            findings.about(name, problem, remedy)


def _check_item_columns(columns: Mapping[str, Shaped], rows: int, findings: Findings) -> None:
    for name, column in columns.items():
        _, ending = split_ending(name) or (name, "")
        expected = _ENDINGS.get(ending) or ITEM_COLUMNS.get(name)
        if expected is None or name in findings.faulty:
            continue
        shape = () if ending == KIND else (rows,)
        if name == PICTURE:
            _check_pictures(column, rows, findings)
        elif column.dtype.kind not in expected or column.shape != shape:
            problem = f"is {column.dtype} of shape {column.shape}"
            lacking = f", {NOT_GIVEN} for an item that has none" * (name in _NULLABLE)
            findings.about(
                name, problem, f"store {_DTYPE_NAMES[expected]} of shape {shape}{lacking}"
            )


def _check_pictures(column: Shaped, rows: int, findings: Findings) -> None:
    items, *size = column.shape or (0,)
    grey, colour = len(size) == 2, len(size) == 3 and size[-1] == 3
    if column.dtype != np.uint8 or items != rows or not (grey or colour) or 0 in size:
        shapes = f"({rows}, height, width) or ({rows}, height, width, 3)"
        remedy = f"store uint8 of shape {shapes}, or give it another name if it is a modality"
        findings.about(PICTURE, f"is {column.dtype} of shape {column.shape}", remedy)


def _modality(
    name: str,
    columns: Mapping[str, Shaped],
    rows: int,
    kinds: Mapping[str, str],
    findings: Findings,
    claimed: Collection[str],
) -> Modality | None:
    column = columns[name]
    announced = name in claimed or any(name + ending in columns for ending in _ENDINGS)
    near = len(column.shape) > 1 and abs(column.shape[0] - rows) <= max(1, rows // 10)
    if not announced and not (near and _is_signal(column.dtype)):
        return None
    if fault := _fault(name, column, rows):
        findings.about(name, *fault)
        return None
    shape = column.shape[1:]
    kind = _kind(name, shape, kinds, findings)
    if kind is Kind.VECTOR and name + LENGTH in columns:
        findings.about(name + LENGTH, f"{name!r} is a vector, which has no length", "remove it")
    return None if kind is None else Modality(name, kind, shape)


def _why_ignored(column: Shaped, rows: int) -> str:
    """Why a column is no modality, of those that nothing announces."""
    shape = column.shape
    if not _is_signal(column.dtype):
        return f"{column.dtype}, no floats"
    if len(shape) < 2:
        return "one number for each item" if shape == (rows,) else f"of shape {shape}"
    return f"{shape[0]} rows, but there are {rows} items"


def _is_signal(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" or dtype == np.uint8


def _fault(name: str, column: Shaped, rows: int) -> tuple[str, str] | None:
    shape = column.shape
    if not _IDENTIFIER.fullmatch(name):
        return "is no name for a modality", "letters, digits and _ make one, a letter first"
    if not _is_signal(column.dtype):
        return f"is {column.dtype}", "a modality holds floats (or uint8 pixels): use .astype"
    if len(shape) < 2:
        return f"has shape {shape}: its items have no axis", "one value per item is [:, None]"
    if shape[0] != rows:
        return f"has {shape[0]} rows, but there are {rows} items", "one row per item is needed"
    if 0 in shape[1:]:
        return f"has shape {shape}: its items are empty", "remove it"
    return None


def _kind(
    name: str, shape: tuple[int, ...], kinds: Mapping[str, str], findings: Findings
) -> Kind | None:
    axes, column = len(shape), name + KIND
    text = kinds.get(column, natural_kind(axes))
    if text not in list(Kind):
        remedy = f"the kinds of signal are {', '.join(Kind)}"
        findings.about(column, f"there is no kind {text!r}", remedy)
        return None
    kind = Kind(text)
    if not kind.allows(axes):
        problem = f"items of {name!r} have shape {shape}, which is no {kind}"
        needed = _AXES.get(kind, "two axes")
        remedy = f"one has {needed}; without a kind this is {natural_kind(axes)}"
        findings.about(column, problem, remedy)
        return None
    return kind


def _nothing_to_learn_from(columns: Mapping[str, Shaped], rows: int) -> tuple[str, str]:
    others = [
        f"{name} {column.shape}"
        for name, column in columns.items()
        if _is_signal(column.dtype) and name not in ITEM_COLUMNS
    ]
    seen = f"; it has {first_few(others)}" if others else ""
    remedy = f"a modality is a float array with one row for each of the {rows} items"
    return f"has no modality{seen}", remedy


def check_ids(ids: NDArray[np.str_] | None, findings: Findings) -> None:
    """Find ids that occur twice; from here on, rows are named with their ids."""
    if ids is None:
        return
    findings.ids = ids
    _, first, counts = np.unique(ids, return_index=True, return_counts=True)
    twice = np.sort(first[counts > 1])
    if len(twice):
        rows = [first_few(list(map(str, np.flatnonzero(ids == ids[row])))) for row in twice]
        named = [
            f"{str(ids[row])!r} (rows {those})" for row, those in zip(twice, rows, strict=True)
        ]
        what = "id occurs" if len(named) == 1 else "ids occur"
        findings.about(
            "ids", f"{len(named)} {what} more than once: {first_few(named)}", "ids must be unique"
        )


def check_split(
    split: NDArray[Any] | None,
    findings: Findings,
    *,
    needed: Collection[str] = SPLITS,
    remedy: str = SPLIT_NUMBERS,
) -> NDArray[np.int64]:
    """(items,) splits; what is no split, and a lack of items in those ``needed``, is a problem."""
    if split is None:
        return np.empty(0, dtype=np.int64)
    known = (split >= 0) & (split < len(SPLITS))
    findings.about_rows("split", "no such split", np.flatnonzero(~known), SPLIT_NUMBERS)
    checked: NDArray[np.int64] = split.astype(np.int64)
    check_counts(count_splits(checked), findings, needed=needed, remedy=remedy)
    return checked


def check_counts(
    counts: tuple[int, int, int],
    findings: Findings,
    *,
    needed: Collection[str] = SPLITS,
    remedy: str = SPLIT_NUMBERS,
) -> None:
    """Find splits without items, of those that are needed."""
    for meaning, items in zip(SPLITS, counts, strict=True):
        if items == 0 and meaning in needed:
            findings.about("split", f"there is no {meaning} item", remedy)


def count_splits(split: NDArray[np.int64]) -> tuple[int, int, int]:
    """Items per split: training, validation, test."""
    training, validation, test = (int((split == value).sum()) for value in range(len(SPLITS)))
    return training, validation, test


def presence_of(split: NDArray[np.int64], present: Mapping[str, NDArray[np.bool_]]) -> Presence:
    """What items have, of (items,) splits and whether each has a modality.

    >>> presence_of(np.array([0, 0, 2]), {"a": np.ones(3, bool), "b": np.arange(3) != 1})
    ((('a',), (1, 0, 0)), (('a', 'b'), (1, 0, 1)))
    """
    if all(each.all() for each in present.values()):
        return ()
    codes = np.zeros(len(split), dtype=np.int64)
    for bit, each in enumerate(present.values()):
        codes |= each.astype(np.int64) << bit
    found = {
        tuple(name for bit, name in enumerate(present) if int(code) >> bit & 1): codes == code
        for code in np.unique(codes)
    }
    return tuple((names, count_splits(split[rows])) for names, rows in sorted(found.items()))
