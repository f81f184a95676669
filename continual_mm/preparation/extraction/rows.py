"""Rows of lists of clips, as they are written: tables, JSON, and a list of UCF101."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from continual_mm.preparation.extraction import published
from continual_mm.system.errors import InputError
from continual_mm.system.reading import read_text


class Row(NamedTuple):
    """A clip as written: the line or entry, from 1 on, and its values without empty ones."""

    number: int
    values: Mapping[str, Any]
    caption: int = 0  # which of several captions of the row, from 1 on; 0 if it has one at most


_Numbered = Iterator[tuple[int, dict[str, Any]]]


def read_rows(path: Path) -> tuple[list[Row], tuple[str, ...]]:
    """Rows and columns of a list, in UTF-8: ``.csv``, ``.tsv``, ``.json``, ``.jsonl``, ``.txt``.

    Values are taken as they stand; of cells only those with nothing but white space are left out.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        remedy = f"the endings are {', '.join(_READERS)}; a folder of media files needs none"
        raise InputError.at(path, f"is no manifest: it ends with {path.suffix!r}", remedy)
    rows, names = list[Row](), dict[str, None]()
    for number, values in reader(read_text(path), str(path)):
        names |= dict.fromkeys(values)
        there = {name: value for name, value in values.items() if not _is_empty(value)}
        rows.append(Row(number, there))
    if not rows:
        raise InputError.at(path, "lists no clip", "give one row for each clip")
    return rows, tuple(names)


def _is_empty(value: object) -> bool:
    return value is None or value == [] or (isinstance(value, str) and not value.strip())


def _table(text: str, source: str, *, delimiter: str) -> _Numbered:
    stream = StringIO(text, newline="")
    lines = csv.DictReader(stream, delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in lines.fieldnames or ()]
        if known := published.without_header(header):
            yield 1, dict(zip(known, lines.fieldnames or (), strict=True))
            header = [*known]
        lines.fieldnames = header
        _check_header(header, source, delimiter)
        for cells in lines:
            if None in cells:
                problem = f"line {lines.line_num} has more cells than the {len(header)} columns"
                raise InputError.at(source, problem, _unquoted(cells.values(), delimiter))
            yield lines.line_num, dict(cells)
    except csv.Error as error:
        problem = f"line {lines.line_num} is no row of a table: {error}"
        raise InputError.at(source, problem) from error


def _unquoted(cells: Iterable[Any], delimiter: str) -> str:
    """What to do about a row that has been divided too often."""
    texts = [text for cell in cells for text in (cell if isinstance(cell, list) else [cell])]
    if any(text and text != text.lstrip() and text.lstrip()[:1] == '"' for text in texts):
        return (
            f"remove the space before the quote: one opens a cell right behind {delimiter!r} only"
        )
    return f"put cells that hold {delimiter!r} in double quotes"


def _check_header(header: Sequence[str], source: str, delimiter: str) -> None:
    others = [each for each in ",;\t|" if each != delimiter and each in "".join(header)]
    twice = [name for name, times in Counter(header).items() if times > 1]
    if len(header) == 1 and others:
        problem = f"its cells are separated by {others[0]!r}, not by {delimiter!r}"
        remedy = "separate them by commas in a .csv, by tabs in a .tsv"
    elif twice:
        problem = f"its first line names {', '.join(map(repr, twice))} more than once"
        remedy = "name every column once"
    else:
        return
    raise InputError.at(source, problem, remedy)


def _objects(text: str, source: str, *, by_line: bool) -> _Numbered:
    if by_line:
        lines = ((n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip())
        entries = ((n, _parsed(line, f"{source}, line {n}")) for n, line in lines)
    else:
        parsed = _parsed(text, source)
        listed = parsed if isinstance(parsed, list) else published.entries(parsed)
        if listed is None:
            remedy = "a manifest is a list of objects, one for each clip"
            raise InputError.at(source, "holds no list", remedy)
        entries = ((n, entry) for n, entry in enumerate(listed, 1))
    for number, entry in entries:
        if not isinstance(entry, dict):
            place = f"{source}, {'line' if by_line else 'entry'} {number}"
            problem = f"is {type(entry).__name__}, not an object with the columns of a clip"
            raise InputError.at(place, problem)
        yield number, entry


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError.at(place, f"is no JSON: {error}") from error


def _lines(text: str, source: str) -> _Numbered:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, published.ucf_line(line, f"{source}, line {number}")


_READERS: Mapping[str, Callable[[str, str], _Numbered]] = {
    ".csv": partial(_table, delimiter=","),
    ".tsv": partial(_table, delimiter="\t"),
    ".json": partial(_objects, by_line=False),
    ".jsonl": partial(_objects, by_line=True),
    ".txt": _lines,
}
