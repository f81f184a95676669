"""One clip in a pickle of clips: its values, each checked when it is taken."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.pickles.fault import shown
from continual_mm.data.pickles.literals import told
from continual_mm.data.published.features import MOST_FEATURES, sound
from continual_mm.data.published.words import written
from continual_mm.data.unpickling import load_pickle

_KEYS_SHOWN = 20
_MOST_AXES = 32
_MOST = 1 << 63

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A clip.

    Attributes:
        name: Its id.
        place: The file, the clip's number in it, and its id.
        values: By key.
    """

    name: str
    place: str
    values: Mapping[object, object]

    @classmethod
    def of(cls, raw: object, number: int, path: Path, seen: set[str], key: str = "id") -> "Entry":
        """Take an element of the list for a clip.

        Args:
            raw: The element.
            number: Its place in the list.
            path: The file.
            seen: The ids so far; takes this one's.
            key: Under which the id stands.

        Raises:
            RefusedError: If it is no dict, or has no id, or that of another clip.
        """
        place = f"{path}, item {number}"
        if not isinstance(raw, Mapping):
            raise _refusal(place, f"is a {type(raw).__name__}", "each clip is a dict")
        name = raw.get(key)
        name = told(name) if isinstance(name, str) else name
        if not isinstance(name, str) or not name or written(name) != name:
            raise _refusal(place, f"has no {key!r} of letters", "each clip has a name of its own")
        if name in seen:
            raise _refusal(place, f"is '{shown(name)}' like a clip before it", "ids are unique")
        seen.add(name)
        return cls(str(name), f"{place} ('{shown(name)}')", raw)

    def vector(self, key: str) -> Floats:
        """Features without time: (features,).

        Raises:
            RefusedError: If there are none, or they are not finite floats of this shape.
        """
        return self._array(key, axes=1)

    def rows(self, key: str) -> Floats:
        """Two axes of features: (time, features), or (mels, frames) for a spectrogram.

        Raises:
            RefusedError: If there are none, or they are not finite floats of this shape.
        """
        return self._array(key, axes=2)

    def texts(self, key: str) -> list[str]:
        """A text, or the texts of a list; at least one.

        Raises:
            RefusedError: If there is none, or it is anything else.
        """
        value = self._value(key)
        texts = np.ravel(value).tolist() if isinstance(value, np.ndarray) else value
        texts = list(texts) if isinstance(texts, list | tuple) else [texts]
        if not texts or not all(isinstance(text, str) for text in texts):
            raise _refusal(self._at(key), "is no text and no list of texts")
        return [written(text) for text in texts if isinstance(text, str)]

    def text(self, key: str) -> str:
        """One text.

        Raises:
            RefusedError: If it is anything else.
        """
        value = self._value(key)
        if not isinstance(value, str):
            raise _refusal(self._at(key), "is no text")
        return written(value)

    def number(self, key: str) -> int:
        """A whole number of at most 64 bits, or a truth value as 0 or 1.

        Raises:
            RefusedError: If it is anything else.
        """
        value = self._value(key)
        if isinstance(value, np.ndarray | Tensor) and value.ndim == 0:
            value = value.item()
        if isinstance(value, int | np.integer | np.bool_):
            number = int(value)
            if -_MOST <= number < _MOST:
                return number
        raise _refusal(self._at(key), "is no whole number")

    def _value(self, key: str) -> object:
        if key not in self.values:
            has = (name for name in self.values if isinstance(name, str))
            known = (
                ", ".join(shown(name) for name in islice(has, _KEYS_SHOWN)) or "no key of letters"
            )
            raise _refusal(self._at(key), "is missing", f"the clip has {known}")
        return self.values[key]

    def _array(self, key: str, axes: int) -> Floats:
        value = self._value(key)
        array = _numbers(value) if isinstance(value, Tensor) else value
        if not isinstance(array, np.ndarray):
            raise _refusal(self._at(key), f"is a {type(value).__name__}", "store an array")
        # Time may be nothing; features may not.
        features = 0 if key == "audio" else -1
        if array.ndim != axes or not 0 < array.shape[features] <= MOST_FEATURES:
            names = "(features,)" if axes == 1 else "(time, features)"
            expected = "(mels, frames)" if key == "audio" else names
            raise _refusal(self._at(key), f"has shape {array.shape}", f"it should be {expected}")
        return sound(array, self._at(key))

    def _at(self, key: str) -> str:
        return f"{self.place}, key {key!r}"


def entries_in(path: Path) -> list[object]:
    """The clips of a file, unchecked.

    Raises:
        RefusedError: If it cannot be opened, or is no list of anything.
    """
    loaded = load_pickle(path)
    if isinstance(loaded, list | tuple) and loaded:
        return list(loaded)
    what = "an empty list" if isinstance(loaded, list | tuple) else f"a {type(loaded).__name__}"
    raise _refusal(str(path), f"holds {what}", "it should be a list with a dict for each clip")


def _numbers(tensor: Tensor) -> Floats | None:
    """A tensor's values, in float32 because NumPy has no bfloat16; None if it has no floats."""
    if not tensor.is_floating_point() or tensor.ndim > _MOST_AXES:
        return None
    values: Floats = tensor.float().numpy()
    return values


def _refusal(place: str, problem: str, remedy: str = "") -> RefusedError:
    return RefusedError(Complaint(place, problem, remedy))
