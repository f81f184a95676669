"""What a manifest file says, row by row and not yet checked: CSV, JSON or JSON lines."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

from continual_mm.complaint import Complaint, RefusedError


@dataclass(frozen=True, slots=True)
class Row:
    """One clip as it is written.

    Attributes:
        number: Line of the file, or entry of a JSON list; both count from 1.
        values: By column; what is empty or null is left out.
    """

    number: int
    values: Mapping[str, Any]


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a manifest: ``.csv``, ``.tsv``, ``.json`` or ``.jsonl``, in UTF-8.

    Raises:
        RefusedError: If the file cannot be read, is of no such kind, or is no table.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        problem = f"is no manifest: it ends with {path.suffix!r}"
        remedy = f"the endings are {', '.join(_READERS)}; a folder of media files needs none"
        raise RefusedError(Complaint(str(path), problem, remedy))
    rows = list(reader(_text(path), str(path)))
    if not rows:
        raise RefusedError(Complaint(str(path), "lists no clip", "give one row for each clip"))
    return rows


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
        raise RefusedError(Complaint(str(path), problem)) from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        problem = f"is not UTF-8: byte 0x{raw[error.start]:02x} in line {line}"
        raise RefusedError(Complaint(str(path), problem, "save it as UTF-8")) from error


def _table(text: str, source: str, delimiter: str) -> Iterator[Row]:
    lines = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(lines, [])]
        _check_header(header, source, delimiter)
        for cells in lines:
            if not cells:
                continue
            if len(cells) > len(header):
                problem = f"line {lines.line_num} has {len(cells)} cells for {len(header)} columns"
                raise RefusedError(Complaint(source, problem, "quote cells that hold a comma"))
            named = zip(header, cells, strict=False)
            yield Row(lines.line_num, _given({name: cell.strip() for name, cell in named}))
    except csv.Error as error:
        problem = f"line {lines.line_num} is no row of a table: {error}"
        raise RefusedError(Complaint(source, problem)) from error


def _check_header(header: list[str], source: str, delimiter: str) -> None:
    others = [mark for mark in ",;\t|" if mark != delimiter and mark in "".join(header)]
    if len(header) == 1 and others:
        problem = f"its cells are parted by {others[0]!r}, not by {delimiter!r}"
        remedy = "part them by commas in a .csv, by tabs in a .tsv"
        raise RefusedError(Complaint(source, problem, remedy))
    twice = [name for name, times in Counter(header).items() if times > 1]
    if twice:
        problem = f"its first line names {', '.join(map(repr, twice))} more than once"
        raise RefusedError(Complaint(source, problem, "name every column once"))


def _list(text: str, source: str) -> Iterator[Row]:
    entries = _parsed(text, source, "")
    if not isinstance(entries, list):
        remedy = "a manifest is a list of objects, one for each clip"
        raise RefusedError(Complaint(source, "holds no list", remedy))
    for number, entry in enumerate(entries, 1):
        yield Row(number, _object(entry, source, f"entry {number}"))


def _lines(text: str, source: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"line {number}"
            yield Row(number, _object(_parsed(line, source, f"{where} "), source, where))


def _parsed(text: str, source: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise RefusedError(Complaint(source, f"{where}is no JSON: {error}")) from error
    except ValueError as error:  # Python reads no number of more than some thousand digits
        problem = f"{where}holds a number of more digits than any number needs"
        raise RefusedError(Complaint(source, problem, "write it shorter")) from error


def _object(entry: Any, source: str, where: str) -> Mapping[str, Any]:
    if not isinstance(entry, dict):
        problem = f"{where} is {type(entry).__name__}, not an object with the columns of a clip"
        raise RefusedError(Complaint(source, problem))
    return _given(entry)


def _given(values: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in values.items() if value is not None and value != ""}


_READERS: Mapping[str, Callable[[str, str], Iterator[Row]]] = MappingProxyType(
    {
        ".csv": lambda text, source: _table(text, source, ","),
        ".tsv": lambda text, source: _table(text, source, "\t"),
        ".json": _list,
        ".jsonl": _lines,
    }
)
