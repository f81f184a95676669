"""What must hold for a single record, before anything of it is written."""

from collections.abc import Sequence
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.store.form import ModalityForm
from continual_mm.data.store.layout import Window
from continual_mm.modality import SPLITS

_MOST_VALUES = 2**30
"""Of one item; Arrow counts those of a block in 32 bits."""


class FaultError(Exception):
    """What is wrong with one column of one record; with the record itself if the name is empty."""

    def __init__(self, column: str, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.column, self.problem, self.remedy = column, problem, remedy


def sound_text(column: str, value: object) -> str:
    """A text that can be stored.

    Raises:
        FaultError: If it is none.
    """
    if not isinstance(value, str):
        raise FaultError(column, f"is {type(value).__name__}, no text", "give a str")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise FaultError(column, f"is no valid text ({error.reason})") from error
    if "\0" in value:
        raise FaultError(column, "contains a NUL character", "remove it")
    return str(value)


def sound_id(value: object) -> str:
    """An item's name.

    Raises:
        FaultError: If it is no text or empty.
    """
    if not sound_text("ids", value):
        raise FaultError("ids", "is empty", "items are told apart by their ids")
    return str(value)


def sound_number(column: str, value: Any) -> int:
    """A whole number.

    Raises:
        FaultError: If it is none, or needs more than 64 bits.
    """
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
    """A text, or the digits of a whole number, as packs have for groups.

    Raises:
        FaultError: If it is neither.
    """
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(sound_number(column, value))
    return sound_text(column, value)


def sound_split(value: object) -> int:
    """0, 1 or 2.

    Raises:
        FaultError: If it is anything else.
    """
    number = sound_number("split", value)
    if not 0 <= number < len(SPLITS):
        raise FaultError("split", f"no such split: {number}", "0 is training, 1 validation, 2 test")
    return number


def sound_features(modality: ModalityForm, value: Any, dtype: str) -> NDArray[Any]:
    """One item's features, as they are stored: one axis, step after step.

    Raises:
        FaultError: If they are no finite floats of the modality's shape, or beyond the dtype.
    """
    name, shape = modality.name, modality.shape
    array = _array(name, value)
    expected = ("time", *shape[1:]) if modality.kind.has_length else shape
    if array.dtype.kind != "f" and array.dtype != np.uint8:
        raise FaultError(name, f"is {array.dtype}", "a modality holds floats (or uint8 pixels)")
    tail = slice(modality.kind.has_length, None)
    if array.ndim != len(shape) or array.shape[tail] != shape[tail]:
        told = f"({', '.join(map(str, expected))}{',' * (len(expected) == 1)})"
        raise FaultError(name, f"has shape {array.shape}", f"its items are {told}")
    return sound_values(name, array, dtype).reshape(-1)


def sound_part(name: str, value: Any, features: int, dtype: str) -> NDArray[Any]:
    """A part of a recording, as it is stored: one axis, step after step; it may be empty.

    Raises:
        FaultError: If it is no array of finite floats of so many features, or beyond the dtype.
    """
    array = _array(name, value)
    if array.dtype.kind != "f" and array.dtype != np.uint8:
        raise FaultError(name, f"is {array.dtype}", "a recording holds floats (or uint8 pixels)")
    if array.ndim < 2 or array[:1].size != features * len(array[:1]):
        raise FaultError(name, f"has shape {array.shape}", f"it has {features} features per step")
    if not len(array):
        return np.empty(0, dtype=dtype)
    return sound_values(name, array, dtype).reshape(-1)


def sound_values(name: str, array: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Values in the dtype that they are stored in.

    Raises:
        FaultError: If there is none, if they are too many, not finite, or beyond the dtype.
    """
    if not 0 < array.size <= _MOST_VALUES:
        raise FaultError(name, f"has shape {array.shape}", "leave it out where there is none")
    with np.errstate(over="ignore"):
        stored = array.astype(dtype)
    if not np.isfinite(stored).all():
        if not np.isfinite(array).all():
            raise FaultError(name, "is not finite", "mend it, or leave it out")
        problem = f"{np.abs(array.astype(np.float64)).max():g} is beyond {dtype}"
        raise FaultError(name, problem, 'write dtype="float32"' if dtype == "float16" else "")
    return stored


def sound_words(modality: ModalityForm, value: Any) -> NDArray[np.int32]:
    """One item's words, as rows of the table of words.

    Raises:
        FaultError: If they are no such rows, or there is none.
    """
    array = _array(modality.name, value)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        problem = f"is {array.dtype} of shape {array.shape}"
        raise FaultError(modality.name, problem, "give the words' rows in the table: (time,)")
    if not array.size:
        raise FaultError(modality.name, "has no word", "leave it out where there is none")
    if array.min() < 0 or array.max() >= modality.words:
        problem = f"has a word outside 0..{modality.words - 1}"
        raise FaultError(modality.name, problem, "give rows of the table of words")
    return array.astype(np.int32)


def sound_window(
    modality: ModalityForm, value: Any, lengths: Sequence[Sequence[int]]
) -> tuple[int, NDArray[np.int32], NDArray[np.int32]]:
    """Where an item lies, cut where the recording ends.

    Args:
        modality: What is cut out.
        value: A :class:`Window`.
        lengths: For each of the modality's parts, steps of every recording so far.

    Returns:
        The recording, and (parts,) begins and ends.

    Raises:
        FaultError: If it is no window of a recording, or an empty one that may not be empty.
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
    steps = [of_part[recording] for of_part in lengths]
    cut = np.minimum(bounds, np.array(steps)[:, None]).astype(np.int32)
    if modality.reduce is None and cut[0, 0] == cut[0, 1]:
        problem = f"lies outside recording {recording}, which has {steps[0]} steps"
        raise FaultError(name, problem, "leave it out where there is none")
    return recording, cut[:, 0], cut[:, 1]


def _array(name: str, value: Any) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except (RuntimeError, TypeError, ValueError) as error:
        # Lists of several lengths, tensors that are being trained.
        raise FaultError(name, f"is no array ({error})") from error
