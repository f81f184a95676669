"""What must hold for a single record, before anything of it is written.

Functions that begin with ``sound_`` give a value as it is stored, or raise a FaultError.
"""

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from operator import index
from types import MappingProxyType
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.findings import FaultError, Findings, sound_text
from continual_mm.data.schema import is_given
from continual_mm.data.store.form import ModalityForm, OptionalColumn, Window
from continual_mm.definitions.modality import SPLITS, Presence
from continual_mm.system.errors import Problem, first_few

OPTIONAL: tuple[OptionalColumn, ...] = get_args(OptionalColumn)

AS_FLOAT32 = 'store it as float32: --dtype float32, or dtype="float32" from Python'

MOST_FAULTS = 100  # faulty records after which no more are read
_MOST_VALUES = 2**30  # of one item; Arrow counts those of a block in 32 bits


def sound_id(value: object) -> str:
    """An item's name."""
    if not sound_text("ids", value):
        raise FaultError("ids", "is empty", "items are distinguished by their ids")
    return str(value)


def sound_number(column: str, value: Any) -> int:
    """A whole number."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = index(value)
    except TypeError as error:
        shown = value.item() if isinstance(value, np.generic) else value
        raise FaultError(column, f"{shown!r} is no whole number") from error
    if not -(2**63) <= number < 2**63:
        raise FaultError(column, f"{number} does not fit into 64 bits")
    return number


def sound_name(column: str, value: Any) -> str:
    """A text, or the digits of a whole number, as packs have for groups."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(sound_number(column, value))
    return sound_text(column, value)


def sound_split(value: object) -> int:
    """0, 1 or 2."""
    number = sound_number("split", value)
    if not 0 <= number < len(SPLITS):
        raise FaultError("split", f"no such split: {number}", "0 is training, 1 validation, 2 test")
    return number


def sound_features(modality: ModalityForm, value: Any, dtype: str) -> NDArray[Any]:
    """One item's features, as they are stored: one axis, step after step."""
    name, shape = modality.name, modality.shape
    values = _floats(name, value, "a modality")
    first = int(modality.kind.has_length)
    if values.ndim != len(shape) or values.shape[first:] != shape[first:]:
        expected = ("time", *shape[1:]) if first else shape
        listed = f"({', '.join(map(str, expected))}{',' * (len(expected) == 1)})"
        raise FaultError(name, f"has shape {values.shape}", f"its items are {listed}")
    return sound_values(name, values, dtype).reshape(-1)


def sound_part(name: str, value: Any, features: int, dtype: str) -> NDArray[Any]:
    """A part of a recording, as it is stored: one axis, step after step; it may be empty."""
    values = _floats(name, value, "a recording")
    if values.ndim < 2 or values[:1].size != features * len(values[:1]):
        raise FaultError(name, f"has shape {values.shape}", f"it has {features} features per step")
    if not len(values):
        return np.empty(0, dtype=dtype)
    return sound_values(name, values, dtype).reshape(-1)


def sound_values(name: str, array: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Values in the dtype that they are stored in."""
    if not 0 < array.size <= _MOST_VALUES:
        raise FaultError(name, f"has shape {array.shape}", "leave it out where there is none")
    with np.errstate(over="ignore"):
        stored = array.astype(dtype)
    if not np.isfinite(stored).all():
        if not np.isfinite(array).all():
            raise FaultError(name, "is not finite", "mend it, or leave it out")
        problem = f"{np.abs(array.astype(np.float64)).max():g} is beyond {dtype}"
        raise FaultError(name, problem, AS_FLOAT32 if dtype == "float16" else "")
    return stored


def sound_words(modality: ModalityForm, value: Any) -> NDArray[np.int32]:
    """One item's words, as rows of the table of words."""
    rows = _array(modality.name, value)
    if rows.dtype.kind not in "iu" or rows.ndim != 1:
        problem = f"is {rows.dtype} of shape {rows.shape}"
        raise FaultError(modality.name, problem, "give the words' rows in the table: (time,)")
    if not rows.size:
        raise FaultError(modality.name, "has no word", "leave it out where there is none")
    if rows.min() < 0 or rows.max() >= modality.words:
        problem = f"has a word outside 0..{modality.words - 1}"
        raise FaultError(modality.name, problem, "give rows of the table of words")
    return rows.astype(np.int32)


def sound_window(
    modality: ModalityForm, value: Any, lengths: Sequence[Sequence[int]]
) -> tuple[int, NDArray[np.int32], NDArray[np.int32]]:
    """Where an item lies, cut where the recording ends: its number, and (parts,) begins and ends.

    ``lengths`` are, for each of the modality's parts, the steps of every recording so far.
    """
    name = modality.name
    if not isinstance(value, Window):
        raise FaultError(name, f"is {type(value).__name__}, no window", "give a Window")
    recording = sound_number(name, value.recording)
    if not 0 <= recording < len(lengths[0]):
        raise FaultError(name, f"there is no recording {recording}", "write it before its items")
    if len(value.spans) != len(modality.parts):
        problem = f"has {len(value.spans)} spans"
        raise FaultError(name, problem, f"give one for each of {', '.join(modality.parts)}")
    bounds = [[sound_number(name, bound) for bound in span] for span in value.spans]
    if any(len(span) != 2 or not 0 <= span[0] <= span[1] for span in bounds):
        raise FaultError(name, f"{value.spans} are no spans", "each has 0 <= begin <= end")
    steps = [part[recording] for part in lengths]
    cut = np.minimum(bounds, np.array(steps)[:, None]).astype(np.int32)
    if modality.reduce is None and cut[0, 0] == cut[0, 1]:
        problem = f"lies outside recording {recording}, which has {steps[0]} steps"
        raise FaultError(name, problem, "leave it out where there is none")
    return recording, cut[:, 0], cut[:, 1]


def _floats(name: str, value: Any, what: str) -> NDArray[Any]:
    values = _array(name, value)
    if values.dtype.kind != "f" and values.dtype != np.uint8:
        raise FaultError(name, f"is {values.dtype}", f"{what} holds floats (or uint8 pixels)")
    return values


def _array(name: str, value: Any) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except (RuntimeError, TypeError, ValueError) as error:
        # Lists of several lengths, tensors that are being trained.
        raise FaultError(name, f"is no array ({error})") from error


class Faults(Findings):
    """What was found wrong with records; with ``left_out``, which takes it, they are left out."""

    def __init__(self, source: str, left_out: list[Problem] | None) -> None:
        super().__init__(source)
        self._left_out = left_out
        self._records: dict[tuple[str, ...], tuple[Problem, int]] = {}

    def __bool__(self) -> bool:
        return bool(self._records or self._problems)

    def about_record(self, record: object, fault: FaultError) -> None:
        """Add a problem about a record; of those with the same fault the first is named."""
        what = f"item {record.get('ids')!r}" if isinstance(record, Mapping) else "a record"
        problem = self.problem(what, fault)
        if self._left_out is not None:
            self._left_out.append(problem)
            return
        first, count = self._records.get(fault.args, (problem, 0))
        self._records[fault.args] = first, count + 1
        if sum(count for _, count in self._records.values()) >= MOST_FAULTS:
            self.about_source(f"nothing was read behind {MOST_FAULTS} faulty records")
            self.refuse()

    def problem(self, what: str, fault: FaultError) -> Problem:
        """A problem with an item or a recording."""
        column = f", column {fault.column!r}" if fault.column else ""
        return Problem(f"{self.source}, {what}{column}", fault.problem, fault.remedy)

    def about_ids(self, ids: Iterable[str]) -> None:
        """Add a problem about ids that occur more than once, if any do."""
        found, counts = np.unique(list(ids), return_counts=True)
        if twice := [repr(str(one)) for one in found[counts > 1]]:
            self.about_source(f"ids occur more than once: {first_few(twice)}", "ids must be unique")

    def refuse(self) -> None:
        """Raise everything that was found, if anything."""
        for problem, count in self._records.values():
            more = f", and in {count - 1} more item{'s' * (count > 2)}" if count > 1 else ""
            self._problems.append(replace(problem, message=problem.message + more))
        self._records = {}
        super().refuse()


_SOUND: Mapping[str, Callable[[str, object], str | int]] = MappingProxyType(
    {"label": sound_number, "group": sound_name, "text_raw": sound_text}
)


class RowMaker:
    """Checks records and makes rows of them."""

    def __init__(self, modalities: Sequence[ModalityForm], dtype: str) -> None:
        self._modalities = modalities
        self._dtype = dtype
        self._seen: set[str] = set()  # optional columns that some record has
        self.groups: dict[str, int] = {}  # name -> number
        self.items = [0] * len(SPLITS)  # per split
        # Modalities -> items per split that have just these.
        self._presence: dict[tuple[str, ...], list[int]] = {}
        self.times = dict.fromkeys((one.name for one in modalities), 0)  # the longest so far
        # Steps of each recording so far.
        self.lengths = {part: array("q") for one in modalities for part in one.parts}

    def row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The row of a record; a FaultError if there is anything wrong with it."""
        if not isinstance(record, Mapping):
            raise FaultError("", f"is {type(record).__name__}, no mapping", "give a dict by column")
        known = {"ids", "split", *OPTIONAL, *self.times}
        if unknown := sorted(str(key) for key in record if key not in known):
            raise FaultError(unknown[0], "is in no layout", f"known are {', '.join(sorted(known))}")
        row: dict[str, Any] = {
            "ids": sound_id(record.get("ids")),
            "split": sound_split(record.get("split")),
            **self._optional(record),
        }
        times = {}
        for one in self._modalities:
            columns, times[one.name] = self._columns(one, record.get(one.name))
            row |= zip(one.columns, columns, strict=True)
        self._seen |= {column for column in OPTIONAL if row[column] is not None}
        if row["group"] is not None:
            row["group"] = self.groups.setdefault(row["group"], len(self.groups))
        self.items[row["split"]] += 1
        having = tuple(name for name, time in times.items() if time)
        self._presence.setdefault(having, [0] * len(SPLITS))[row["split"]] += 1
        self.times = {name: max(time, times[name]) for name, time in self.times.items()}
        return row

    @property
    def columns(self) -> tuple[OptionalColumn, ...]:
        """The optional columns that some item had so far."""
        return tuple(column for column in OPTIONAL if column in self._seen)

    def forms(self) -> tuple[ModalityForm, ...]:
        """The modalities with the longest times so far, or their least, if that is more."""
        return tuple(
            one.model_copy(
                update={"shape": (max(self.times[one.name], one.shape[0]), *one.shape[1:])}
            )
            if one.kind.has_length
            else one
            for one in self._modalities
        )

    @property
    def presence(self) -> Presence:
        """What the items so far have."""
        if set(self._presence) == {tuple(self.times)}:
            return ()
        return tuple((names, (a, b, c)) for names, (a, b, c) in sorted(self._presence.items()))

    def check_occurrence(self, faults: Faults) -> None:
        """Find that there are no items, or modalities that none has."""
        if faults:
            return
        if not sum(self.items):
            faults.about_source("has no items", "give at least one")
            return
        for name in (name for name, time in self.times.items() if not time):
            faults.about_source(f"no item has the modality {name!r}", "leave it out of the layout")

    def _optional(self, record: Mapping[str, Any]) -> dict[str, Any]:
        given = ((column, record.get(column)) for column in OPTIONAL)
        return {
            column: _SOUND[column](column, value) if is_given(value) else None
            for column, value in given
        }

    def _columns(self, modality: ModalityForm, value: Any) -> tuple[Sequence[Any], int]:
        """The modality's columns of a row, and its steps; 0 if the item lacks it."""
        if value is None:
            return (None,) * len(modality.columns), 0
        if modality.source == "windows":
            window = sound_window(modality, value, [self.lengths[part] for part in modality.parts])
            steps = int(window[2][0] - window[1][0])
            return window, 1 if modality.reduce else min(steps, modality.shape[0])
        if modality.source == "words":
            words = sound_words(modality, value)
            return (words,), len(words)
        features = sound_features(modality, value, self._dtype)
        return (features,), len(features) // modality.modality.features
