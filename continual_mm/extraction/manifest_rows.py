"""One row of a manifest -> a clip; what is wrong with rows is collected and told at once."""

import math
from collections import defaultdict
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from continual_mm.complaint import Complaint
from continual_mm.data.findings import first_few
from continual_mm.data.store.checks import FaultError, sound_text
from continual_mm.extraction.clips import SPLITS, Clip, Word
from continual_mm.extraction.manifest_file import Row
from continual_mm.extraction.media_files import MediaFiles

COLUMNS = ("id", "path", "start", "end", "text", "words", "split", "group", "label")
"""What a manifest may say of a clip; one of ``id``, ``path`` and ``text`` is enough."""

_OF_FILES = ("start", "end", "words")  # what is said of a clip that has a file
_LARGEST = 2**63  # no number of a class


class Problems:
    """What is wrong, by column; rows with the same problem are told together."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._rows: dict[tuple[str, str, str], list[str]] = defaultdict(list)

    def about(self, row: Row, column: str, problem: str, remedy: str = "") -> None:
        """Complain about a row's value in a column."""
        value = row.values.get(column)
        shown = "" if value is None else f" ({str(value)[:60]!r})"
        self._rows[column, problem, remedy].append(f"{row.number}{shown}")

    def complaints(self) -> list[Complaint]:
        """Everything that was found."""
        return [
            Complaint(
                f"{self._source}, column {column!r}",
                f"{problem} in {'row' if len(rows) == 1 else 'rows'} {first_few(rows)}",
                remedy,
            )
            for (column, problem, remedy), rows in self._rows.items()
        ]


class RowReader:
    """Reads rows one after another.

    Args:
        source: The manifest.
        files: Beside it.
        by_ids: Whether rows without a path mean the file that is called as their id; if not, they
            may be text alone.

    Attributes:
        problems: What is wrong with rows.
        absent: Files that are not to be had; those clips fail, and others do not.
    """

    def __init__(self, source: str, files: MediaFiles, *, by_ids: bool) -> None:
        self.problems, self.absent = Problems(source), Problems(source)
        self._files = files
        self._by_ids = by_ids

    def clip(self, row: Row) -> Clip:
        """A clip as far as its row can be used; its id is empty if the row gives none."""
        clip = _clip(row, self.problems)
        path = _text(row, "path", self.problems)
        if path is not None:
            if mistake := self._files.mistake(path):
                self.problems.about(row, "path", mistake, "give files in it, relative to it")
                return clip
            return self._with_file(clip, row, "path", PurePosixPath(path).as_posix())
        if "path" in row.values or ("id" in row.values and not clip.id):
            return clip  # which is told already
        found = self._files.beside(clip.id) if clip.id else []
        if len(found) == 1:
            return self._with_file(clip, row, "id", found[0])
        if found:
            problem = "is the name of several media files beside it"
            self.problems.about(row, "id", problem, "give 'path'")
        elif self._is_text(row):
            return clip
        elif not clip.id:
            remedy = "give 'path', or 'id' if the file is called so, or 'text' alone"
            self.problems.about(row, "path", "is missing", remedy)
        else:
            problem = "is the name of no media file beside it"
            self.absent.about(row, "id", problem, "give 'path'")
            return replace(clip, path=clip.id, fault="names no media file beside the manifest")
        return clip

    def _with_file(self, clip: Clip, row: Row, column: str, path: str) -> Clip:
        fault = self._files.fault(path)
        if fault:
            self.absent.about(row, column, fault)
        return replace(clip, path=path, fault=fault)

    def _is_text(self, row: Row) -> bool:
        """Whether a row of no file means text that belongs to none."""
        named = "id" in row.values and self._by_ids
        return "text" in row.values and not named and row.values.keys().isdisjoint(_OF_FILES)


def _clip(row: Row, problems: Problems) -> Clip:
    start = _seconds(row, "start", problems)
    end = _seconds(row, "end", problems)
    if end is not None and end <= (start or 0.0):
        problems.about(row, "end", "is not after 'start'", "both are seconds of the file")
    return Clip(
        id=_text(row, "id", problems) or "",
        path="",
        start=start or 0.0,
        end=end,
        text=_text(row, "text", problems),
        words=_words(row, problems),
        split=_split(row, problems),
        group=_text(row, "group", problems),
        label=_label(row, problems),
    )


def _text(row: Row, column: str, problems: Problems) -> str | None:
    value = row.values.get(column)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if value is None:
        return value
    if not isinstance(value, str):
        problems.about(row, column, "is no text")
        return None
    try:
        return sound_text(column, value)
    except FaultError as fault:
        problems.about(row, column, fault.problem, fault.remedy)
        return None


def _seconds(row: Row, column: str, problems: Problems) -> float | None:
    value = row.values.get(column)
    if value is None:
        return None
    seconds = _number(value)
    if seconds is None or seconds < 0:
        remedy = "give seconds from the file's beginning, such as 61.5 for 1:01.5"
        problems.about(row, column, "is no time", remedy)
        return None
    return seconds


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _words(row: Row, problems: Problems) -> tuple[Word, ...]:
    value = row.values.get("words", ())
    words = [_word(entry) for entry in value] if isinstance(value, list | tuple) else [None]
    sound = [word for word in words if word is not None]
    if len(sound) < len(words):
        problems.about(row, "words", "is no list of words", "each is [word, start, end]")
    return tuple(sound)


def _word(entry: Any) -> Word | None:
    if not isinstance(entry, list) or len(entry) != 3:
        return None
    try:
        word = sound_text("words", entry[0])
    except FaultError:
        return None
    start, end = _number(entry[1]), _number(entry[2])
    return None if start is None or end is None else Word(word, start, end)


def _split(row: Row, problems: Problems) -> int:
    value = str(row.values.get("split", 0)).lower()
    if value in SPLITS:
        return SPLITS[value]
    if value in {"0", "1", "2"}:
        return int(value)
    problems.about(row, "split", "is no split", f"the splits are {', '.join(SPLITS)}, 0, 1, 2")
    return 0


def _label(row: Row, problems: Problems) -> int | None:
    value = row.values.get("label")
    if value is None:
        return None
    number = _number(value)
    if number is None or number != int(number) or not 0 <= number < _LARGEST:
        problems.about(row, "label", "is no whole number", "number the classes from 0")
        return None
    return int(number)
