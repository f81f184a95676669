"""What is said in long videos, and when: ``caption.pickle`` or ``caption.json``."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.findings import first_few
from continual_mm.data.published.report import Report
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

    def of(self, video: str, report: Report | None = None) -> Captions:
        """The captions of one video.

        Args:
            video: Its name.
            report: Lists captions that are broken one by one, if it skips such; without one they
                end the reading as well.

        Raises:
            RefusedError: If it has none, or if these are not as they should be.
        """
        place = f"{self.path}, video {video!r}"
        if video not in self._raw:
            raise RefusedError(Complaint(place, "has no captions", "leave it out of the list"))
        entry = self._raw[video]
        if not isinstance(entry, Mapping):
            raise RefusedError(Complaint(place, f"is a {type(entry).__name__}", _FORM))
        starts, ends, texts = (_column(entry, key, place) for key in ("start", "end", "text"))
        if not len(starts) == len(ends) == len(texts) or not texts:
            lengths = f"{len(starts)} starts, {len(ends)} ends and {len(texts)} texts"
            raise RefusedError(Complaint(place, f"has {lengths}", _FORM))
        broken = _broken(starts, ends, texts)
        for problem in dict.fromkeys(broken.values()):
            rows = [row for row, found in broken.items() if found == problem]
            named = first_few([str(row) for row in rows])
            (report or Report()).leave_out(Complaint(f"{place}, captions {named}", problem, _FORM))
        kept = [row for row in range(len(texts)) if row not in broken]
        if not kept:
            raise RefusedError(Complaint(place, "has no caption that can be read", _FORM))
        first, last = (np.array([each[row] for row in kept], np.float64) for each in (starts, ends))
        said = (texts[row] for row in kept)
        return Captions(first, last, tuple(written(one) for one in said if isinstance(one, str)))


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


def _broken(
    starts: Sequence[object], ends: Sequence[object], texts: Sequence[object]
) -> dict[int, str]:
    """What is wrong with captions, by their rows."""
    found: dict[int, str] = {}
    for row, (start, end, text) in enumerate(zip(starts, ends, texts, strict=True)):
        if not _is_time(start):
            found[row] = "'start' is no finite number of seconds"
        elif not _is_time(end):
            found[row] = "'end' is no finite number of seconds"
        elif not isinstance(text, str):
            found[row] = f"'text' is no text ({type(text).__name__})"
        elif end < start:
            found[row] = "they end before they start"
    return found


def _is_time(value: object) -> TypeGuard[float]:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return bool(-_LATEST < value < _LATEST)
