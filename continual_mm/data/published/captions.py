"""What is said in long videos, and when: ``caption.pickle`` or ``caption.json``."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.findings import first_few
from continual_mm.data.published.words import written
from continual_mm.data.unpickling import load_pickle

_LATEST = 1e9
"""Seconds that no video has; NaN is not below it either."""

_FORM = "it holds start, end and text, lists of one length: seconds, seconds, words"


@dataclass(frozen=True, slots=True, eq=False)
class Captions:
    """The captions of one video; there is at least one.

    Attributes:
        starts: (captions,) seconds.
        ends: (captions,) seconds, none before its start.
        texts: What is said.
    """

    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)


class CaptionFile:
    """The captions of many videos, checked video by video when they are asked for."""

    def __init__(self, path: Path) -> None:
        """Read a file of captions.

        Args:
            path: ``.json``, or a pickle: video -> start, end and text, each a list; or a frame of
                pandas with these columns.

        Raises:
            RefusedError: If it cannot be opened, or is no such file.
        """
        self.path = path
        raw = _json(path) if path.suffix == ".json" else load_pickle(path)
        if not isinstance(raw, Mapping):
            problem = f"holds a {type(raw).__name__}"
            raise RefusedError(Complaint(str(path), problem, "it maps videos to their captions"))
        self._raw: Mapping[object, object] = raw

    def __len__(self) -> int:
        return len(self._raw)

    def __contains__(self, video: object) -> bool:
        return video in self._raw

    def __iter__(self) -> Iterator[str]:
        """The videos' names."""
        return (video for video in self._raw if isinstance(video, str))

    def of(self, video: str) -> Captions:
        """The captions of one video.

        Raises:
            RefusedError: If it has none, or if these are not as they should be.
        """
        place = f"{self.path}, video {video!r}"
        if video not in self._raw:
            raise RefusedError(Complaint(place, "has no captions", "leave it out of the list"))
        entry = self._raw[video]
        if not isinstance(entry, Mapping):
            raise RefusedError(Complaint(place, f"is a {type(entry).__name__}", _FORM))
        starts, ends = (_seconds(entry, key, place) for key in ("start", "end"))
        texts = _texts(entry, place)
        if not len(starts) == len(ends) == len(texts) or not texts:
            lengths = f"{len(starts)} starts, {len(ends)} ends and {len(texts)} texts"
            raise RefusedError(Complaint(place, f"has {lengths}", _FORM))
        backwards = np.flatnonzero(ends < starts)
        if len(backwards):
            named = first_few([str(row) for row in backwards])
            raise RefusedError(Complaint(place, f"captions end before they start: {named}"))
        return Captions(starts, ends, texts)


def _json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        problem = f"cannot be opened: {error.strerror or error}"
        raise RefusedError(Complaint(str(path), problem)) from error
    except (ValueError, RecursionError) as error:
        problem = f"is no JSON ({error})"
        raise RefusedError(Complaint(str(path), problem, "copy or write it again")) from error


def _column(entry: Mapping[object, object], key: str, place: str) -> Sequence[object]:
    values = entry.get(key)
    if isinstance(values, np.ndarray) and values.ndim == 1:
        values = values.tolist()
    if not isinstance(values, list | tuple):
        problem = f"has no list {key!r}" if key in entry else f"has no {key!r}"
        raise RefusedError(Complaint(place, problem, _FORM))
    return values


def _seconds(entry: Mapping[object, object], key: str, place: str) -> NDArray[np.float64]:
    values = _column(entry, key, place)
    wrong = [row for row, value in enumerate(values) if not _is_time(value)]
    if wrong:
        named = first_few([str(row) for row in wrong])
        problem = f"{key!r} is no finite number of seconds in {named}"
        raise RefusedError(Complaint(place, problem, _FORM))
    return np.array(values, dtype=np.float64)


def _is_time(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return bool(-_LATEST < value < _LATEST)


def _texts(entry: Mapping[object, object], place: str) -> tuple[str, ...]:
    values = _column(entry, "text", place)
    wrong = [row for row, value in enumerate(values) if not isinstance(value, str)]
    if wrong:
        named = first_few([f"{row} ({type(values[row]).__name__})" for row in wrong])
        raise RefusedError(Complaint(place, f"'text' is no text in {named}", _FORM))
    return tuple(written(value) for value in values if isinstance(value, str))
