"""One row of a manifest -> a clip; what is wrong with rows is collected and told at once."""

import math
from collections import defaultdict
from pathlib import PurePosixPath
from typing import Any

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.findings import first_few
from continual_mm.extraction.clips import SPLITS, Clip, Word
from continual_mm.extraction.manifest_file import Row
from continual_mm.extraction.media_files import MediaFiles

COLUMNS = ("id", "path", "start", "end", "text", "words", "split", "group", "label")
"""What a manifest may say of a clip; all but one of ``id`` and ``path`` may be left out."""


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

    def refuse(self) -> None:
        """End here if anything was found."""
        complaints = [
            Complaint(
                f"{self._source}, column {column!r}",
                f"{problem} in {'row' if len(rows) == 1 else 'rows'} {first_few(rows)}",
                remedy,
            )
            for (column, problem, remedy), rows in self._rows.items()
        ]
        if complaints:
            raise RefusedError(complaints)


def read_clip(row: Row, files: MediaFiles, problems: Problems) -> Clip:
    """A clip as far as its row can be used; its id is empty if the row gives none."""
    start = _seconds(row, "start", problems)
    end = _seconds(row, "end", problems)
    if end is not None and end <= (start or 0.0):
        problems.about(row, "end", "is not after 'start'", "both are seconds of the file")
    return Clip(
        id=_text(row, "id", problems) or "",
        path=_path(row, files, problems),
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
    if value is None or isinstance(value, str):
        return value
    problems.about(row, column, "is no text")
    return None


def _seconds(row: Row, column: str, problems: Problems) -> float | None:
    value = row.values.get(column)
    if value is None:
        return None
    seconds = _number(value)
    if seconds is None or seconds < 0:
        problems.about(row, column, "is no time", "give seconds from the file's beginning")
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


def _path(row: Row, files: MediaFiles, problems: Problems) -> str:
    path = _text(row, "path", problems)
    if path is None:
        return _beside(row, files, problems)
    if fault := files.fault(path):
        problems.about(row, "path", fault, "give files in it, relative to it")
    return PurePosixPath(path).as_posix()


def _beside(row: Row, files: MediaFiles, problems: Problems) -> str:
    name = str(row.values.get("id", ""))
    found = files.beside(name)
    if not name:
        problems.about(row, "path", "is missing", "give 'path', or 'id' if the file is called so")
    elif not found:
        problems.about(row, "id", "is the name of no media file beside it", "give 'path'")
    elif len(found) > 1:
        problems.about(row, "id", "is the name of several media files beside it", "give 'path'")
    elif fault := files.fault(found[0]):
        problems.about(row, "id", fault)
    return found[0] if found else ""


def _words(row: Row, problems: Problems) -> tuple[Word, ...]:
    value = row.values.get("words", ())
    words = [_word(entry) for entry in value] if isinstance(value, list | tuple) else [None]
    sound = [word for word in words if word is not None]
    if len(sound) < len(words):
        problems.about(row, "words", "is no list of words", "each is [word, start, end]")
    return tuple(sound)


def _word(entry: Any) -> Word | None:
    if not isinstance(entry, list) or len(entry) != 3 or not isinstance(entry[0], str):
        return None
    start, end = _number(entry[1]), _number(entry[2])
    return None if start is None or end is None else Word(entry[0], start, end)


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
    if number is None or number != int(number) or number < 0:
        problems.about(row, "label", "is no whole number", "number the classes from 0")
        return None
    return int(number)
