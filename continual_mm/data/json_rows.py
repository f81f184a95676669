"""Rows of JSON files as they stand: other readers make times of texts that look like one."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from continual_mm.system.errors import InputError
from continual_mm.system.reading import read_text


@dataclass(frozen=True, slots=True)
class JsonRows:
    """Objects of some files, one after another, each time they are asked for.

    A file is a list of objects, or has one object in each line and is never in memory as a whole.
    """

    files: Sequence[Path]
    features: None = None  # what types the columns have is not written anywhere

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for path in self.files:
            for place, row in _listed(path) if _is_list(path) else _lines(path):
                if not isinstance(row, dict):
                    raise InputError.at(place, f"is {type(row).__name__}, not an object")
                yield row


def _is_list(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["


def _listed(path: Path) -> Iterator[tuple[str, Any]]:
    rows = _parsed(read_text(path), str(path))
    return ((f"{path}, entry {number}", row) for number, row in enumerate(rows, 1))


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                place = f"{path}, line {number}"
                yield place, _parsed(line, place)


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        remedy = "a file holds a list of objects, or an object in each line"
        raise InputError.at(place, f"is no JSON: {error}", remedy) from error
