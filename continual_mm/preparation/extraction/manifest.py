"""Manifests of clips, read and checked as a whole: all mistakes are reported at once."""

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from hashlib import blake2b
from io import StringIO
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import pydantic
from pydantic.dataclasses import dataclass as checked_dataclass

from continual_mm.data.recognise import MEDIA_ENDINGS
from continual_mm.system.errors import InputError, Problem, first_few, suggestion
from continual_mm.system.reading import read_text, reads

SPLITS: Mapping[str, int] = MappingProxyType(
    {"train": 0, "validation": 1, "val": 1, "valid": 1, "dev": 1, "test": 2}
)
"""Names of splits and the numbers that packs use for them."""

SILENCES = frozenset({"sil", "sp"})  # what aligners write where nothing is said


def _valid_text(value: str) -> str:
    value.encode()  # which raises ValueError for lone surrogates
    if "\0" in value:
        raise ValueError("contains a NUL character")
    return value


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("is no number")
    return value


def _split_number(value: object) -> object:
    return SPLITS.get(str(value).lower(), _no_bool(value))


_Text = Annotated[str, pydantic.AfterValidator(_valid_text)]
_Number = Annotated[int, pydantic.BeforeValidator(_no_bool), pydantic.Field(ge=0, lt=2**63)]
_Seconds = Annotated[pydantic.FiniteFloat, pydantic.BeforeValidator(_no_bool), pydantic.Field(ge=0)]


class Word(NamedTuple):
    """A spoken word and when it is said, in seconds of its file."""

    word: _Text
    start: pydantic.FiniteFloat
    end: pydantic.FiniteFloat


@checked_dataclass(frozen=True, slots=True, config=pydantic.ConfigDict(coerce_numbers_to_str=True))
class Clip:
    """A media file from ``start`` to ``end`` seconds, or text that belongs to none."""

    id: _Text = ""
    path: _Text = ""  # relative to the manifest's folder, with forward slashes
    start: _Seconds = 0.0
    end: _Seconds | None = None  # None for the file's end
    text: _Text | None = None
    words: tuple[Word, ...] = ()
    split: Annotated[int, pydantic.BeforeValidator(_split_number), pydantic.Field(ge=0, le=2)] = 0
    group: _Text | None = None  # a long video or a speaker that it belongs to
    label: _Number | None = None
    fault: str = ""  # why the file is not to be opened

    @pydantic.field_validator("end")
    @classmethod
    def _is_after_start(cls, end: float | None, info: pydantic.ValidationInfo) -> float | None:
        if end is not None and end <= info.data.get("start", 0.0):
            raise ValueError("is not after 'start'")
        return end

    @property
    def caption(self) -> str | None:
        """The text; without one the words whose middle is in the clip, None if there are none.

        >>> words = Word("sil", 0, 1), Word("bin", 1, 1.5), Word("blue", 1.5, 2.5)
        >>> Clip("a", "a.mpg", end=1.9, words=words).caption
        'bin'
        """
        if self.text is not None:
            return self.text
        last = float("inf") if self.end is None else self.end
        said = [
            word.word
            for word in self.words
            if word.word not in SILENCES and self.start <= (word.start + word.end) / 2 < last
        ]
        return " ".join(said) or None


@dataclass(frozen=True, slots=True)
class Manifest:
    """Clips, checked, in the order of the file or of the sorted paths, and what was ignored."""

    folder: Path
    clips: tuple[Clip, ...]
    warnings: tuple[str, ...] = ()


def hashed_split(key: str) -> int:
    """Training (80 %), validation or test (10 % each), by the hash of a name, on any machine."""
    digest = blake2b(key.encode(), digest_size=8, person=b"split").digest()
    share = int.from_bytes(digest, "big") / 2**64
    return 0 if share < 0.8 else 1 if share < 0.9 else 2


COLUMNS = ("id", "path", "start", "end", "text", "words", "split", "group", "label")
"""Columns of a manifest, as :class:`Clip` has them; ``id``, ``path`` or ``text`` is enough."""

_OF_FILES = ("start", "end", "words")  # what is said of a clip that has a file
_TIME = "is no time", "give seconds from the file's beginning, such as 61.5 for 1:01.5"
_TEXT = "is no valid text", "give a string without NUL characters and lone surrogates"
_EXPECTED: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(("id", "path", "text", "group"), _TEXT),
        **dict.fromkeys(("start", "end"), _TIME),
        "words": ("is no list of words", "each is [word, start, end]"),
        "split": ("is no split", f"the splits are {', '.join(SPLITS)}, 0, 1, 2"),
        "label": ("is no whole number", "number the classes from 0"),
    }
)
"""Of each column, what is said of a value that is not valid, and the remedy."""

_CLIP = pydantic.TypeAdapter(Clip)


class RowProblems:
    """What is wrong, by column; rows with the same problem share one message."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._rows: dict[tuple[str, str, str], list[str]] = defaultdict(list)

    def add(
        self, number: int, column: str, problem: str, remedy: str = "", *, value: object = None
    ) -> None:
        """Something is wrong with the value in a column of a row."""
        shown = "" if value is None else f" ({str(value)[:60]!r})"
        self._rows[column, problem, remedy].append(f"{number}{shown}")

    def all(self) -> list[Problem]:
        """Everything that was added."""
        return [
            Problem(
                f"{self._source}, column {column!r}",
                f"{problem} in {'row' if len(rows) == 1 else 'rows'} {first_few(rows)}",
                remedy,
            )
            for (column, problem, remedy), rows in self._rows.items()
        ]


class Row(NamedTuple):
    """A clip as written: the line or entry, from 1 on, and its values without empty ones."""

    number: int
    values: Mapping[str, Any]


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a manifest: ``.csv``, ``.tsv``, ``.json`` or ``.jsonl``, in UTF-8."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        remedy = f"the endings are {', '.join(_READERS)}; a folder of media files needs none"
        raise InputError.at(path, f"is no manifest: it ends with {path.suffix!r}", remedy)
    text = read_text(path)
    rows = [
        Row(number, {name: v for name, v in values.items() if v is not None and v != ""})
        for number, values in reader(text, str(path))
    ]
    if not rows:
        raise InputError.at(path, "lists no clip", "give one row for each clip")
    return rows


def _table(text: str, source: str, *, delimiter: str) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = csv.DictReader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        lines.fieldnames = header = [name.strip() for name in lines.fieldnames or ()]
        _check_header(header, source, delimiter)
        for cells in lines:
            if None in cells:
                problem = f"line {lines.line_num} has more cells than the {len(header)} columns"
                raise InputError.at(source, problem, "quote cells that hold a comma")
            yield lines.line_num, {name: (cell or "").strip() for name, cell in cells.items()}
    except csv.Error as error:
        problem = f"line {lines.line_num} is no row of a table: {error}"
        raise InputError.at(source, problem) from error


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


def _objects(text: str, source: str, *, by_line: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    if by_line:
        lines = ((n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip())
        entries = ((n, _parsed(line, f"{source}, line {n}")) for n, line in lines)
    else:
        parsed = _parsed(text, source)
        if not isinstance(parsed, list):
            remedy = "a manifest is a list of objects, one for each clip"
            raise InputError.at(source, "holds no list", remedy)
        entries = ((n, entry) for n, entry in enumerate(parsed, 1))
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


_READERS: Mapping[str, Callable[[str, str], Iterator[tuple[int, dict[str, Any]]]]] = {
    ".csv": partial(_table, delimiter=","),
    ".tsv": partial(_table, delimiter="\t"),
    ".json": partial(_objects, by_line=False),
    ".jsonl": partial(_objects, by_line=True),
}


class _Reading:
    """Rows of a manifest as clips; ``problems`` refuse it, ``absent`` ones fail their clips."""

    def __init__(self, source: str, folder: Path, rows: Sequence[Row]) -> None:
        self.problems, self.absent = RowProblems(source), RowProblems(source)
        self._folder = folder.resolve()
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in MEDIA_ENDINGS:
                self._by_stem[path.stem].append(path.name)
        self._fault = cache(self._uncached_fault)
        # Whether rows without a path mean the file that is called as their id.
        self._by_ids = any(
            "path" not in row.values and str(row.values.get("id", "")) in self._by_stem
            for row in rows
        )

    def clip(self, row: Row) -> Clip:
        """A clip as far as its row can be used; its id is empty if the row gives none."""
        clip, wrong = self._checked(row)
        if clip.path:
            path = PurePosixPath(clip.path)
            if path.is_absolute() or ".." in path.parts:
                problem, remedy = "leaves the manifest's folder", "give files in it, relative to it"
                self.problems.add(row.number, "path", problem, remedy, value=clip.path)
                return clip
            return self._with_file(clip, row, "path", path.as_posix())
        return clip if wrong & {"id", "path"} else self._without_path(clip, row)

    def _checked(self, row: Row) -> tuple[Clip, set[str]]:
        """A clip of the values that are valid, and the names of columns with others."""
        values = {name: row.values[name] for name in COLUMNS if name in row.values}
        wrong = set[str]()
        try:
            return _CLIP.validate_python(values), wrong
        except pydantic.ValidationError as error:
            for each in error.errors():
                column = str(each["loc"][0])
                if column not in wrong:
                    problem, remedy = _EXPECTED[column]
                    if "after 'start'" in each["msg"]:
                        problem, remedy = "is not after 'start'", "both are seconds of the file"
                    self.problems.add(row.number, column, problem, remedy, value=values[column])
                    wrong.add(column)
        return _CLIP.validate_python({k: v for k, v in values.items() if k not in wrong}), wrong

    def _without_path(self, clip: Clip, row: Row) -> Clip:
        found = self._by_stem.get(clip.id, []) if clip.id else []
        named = "id" in row.values and self._by_ids  # as a file, not as text that belongs to none
        if len(found) == 1:
            return self._with_file(clip, row, "id", found[0])
        if found:
            problem = "is the name of several media files beside it"
            self.problems.add(row.number, "id", problem, "give 'path'", value=clip.id)
        elif "text" in row.values and row.values.keys().isdisjoint(_OF_FILES) and not named:
            return clip
        elif not clip.id:
            remedy = "give 'path', or 'id' if the file is called so, or 'text' alone"
            self.problems.add(row.number, "path", "is missing", remedy)
        else:
            problem = "is the name of no media file beside it"
            self.absent.add(row.number, "id", problem, "give 'path'", value=clip.id)
            return replace(clip, path=clip.id, fault="names no media file beside the manifest")
        return clip

    def _with_file(self, clip: Clip, row: Row, column: str, path: str) -> Clip:
        fault = self._fault(path)
        if fault:
            self.absent.add(row.number, column, fault, value=row.values[column])
        return replace(clip, path=path, fault=fault)

    def _uncached_fault(self, path: str) -> str:
        """Why a file is not to be opened; empty if it is."""
        try:
            real = (self._folder / path).resolve()
            if not real.is_relative_to(self._folder):
                return "leaves the manifest's folder through a link"
            return "" if real.is_file() else "names no file"
        except (OSError, RuntimeError):
            return "cannot be followed"


@reads
def open_manifest(path: Path) -> Manifest:
    """The clips that a manifest file lists, or the media files in a folder, one clip each.

    ``path`` is relative to the file's folder, by default that of the one media file beside it that
    is called as the ``id``; an id is by default the path without ending, with the times if the file
    has several clips. Those are a group where none is given, so that clips of one video never lie
    in two splits. Where no row has a ``split``, the hash of the group or id decides.

    A row of ``text`` alone is a clip without a file, such as the name of a class. A file that is
    not there makes a clip that fails, and a warning; an InputError only if all are missing.
    """
    if path.is_dir():
        folder, (rows, warnings) = path, _media_rows(path)
    else:
        folder, rows, warnings = path.parent, read_rows(path), []
    reading = _Reading(str(path), folder, rows)
    clips = _named([reading.clip(row) for row in rows])
    problems = reading.problems
    _check_ids(clips, rows, problems)
    if any("split" in row.values for row in rows):
        for row in rows:
            if "split" not in row.values:
                remedy = "give a split for every clip or for none"
                problems.add(row.number, "split", "is missing", remedy)
    else:
        clips = [replace(clip, split=hashed_split(clip.group or clip.id)) for clip in clips]
    faults = [clip.fault for clip in clips if clip.path]
    absent, lacks_all = reading.absent.all(), bool(faults) and all(faults)
    if problems.all() or lacks_all:
        raise InputError([*problems.all(), *(absent if lacks_all else [])])
    warnings += _ignored(path, rows)
    warnings += [f"{problem.place}: {problem.message}" for problem in absent]
    alone = [row for clip, row in zip(clips, rows, strict=True) if not clip.path]
    if any("id" in row.values for row in alone):  # which may have been meant to have files
        some = "1 row is" if len(alone) == 1 else f"{len(alone):,} rows are"
        warnings.append(f"{path}: {some} text alone, without video and audio")
    return Manifest(folder, tuple(clips), tuple(warnings))


def with_validation(manifest: Manifest) -> Manifest:
    """Move a tenth of the training clips, groups whole, to validation, if no clip is there."""
    if any(clip.split == 1 for clip in manifest.clips):
        return manifest
    clips = tuple(
        replace(clip, split=1)
        if clip.split == 0 and hashed_split(clip.group or clip.id) == 1
        else clip
        for clip in manifest.clips
    )
    return replace(manifest, clips=clips)


def _media_rows(folder: Path) -> tuple[list[Row], list[str]]:
    """All media files below a folder but hidden ones, and warnings about what is left out."""
    paths, warnings = [], []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if any(part[0] == "." for part in name.split("/")):
            continue
        if path.is_symlink() and path.is_dir():
            warnings.append(f"{path} is a link to a folder and is not searched")
        elif path.suffix.lower() in MEDIA_ENDINGS and (path.is_file() or path.is_symlink()):
            try:
                paths.append(_valid_text(name))
            except ValueError:
                warnings.append(f"{str(path)!r} is ignored: its name is no UTF-8; rename it")
    if not paths:
        remedy = "give a folder of videos or audio files, or a manifest (.csv, .tsv, .json, .jsonl)"
        raise InputError.at(folder, "holds no media file", remedy)
    stems = Counter(map(_without_ending, paths))
    ids = [path if stems[_without_ending(path)] > 1 else _without_ending(path) for path in paths]
    pairs = zip(ids, paths, strict=True)
    rows = [Row(number, {"id": name, "path": path}) for number, (name, path) in enumerate(pairs, 1)]
    return rows, warnings


def _ignored(path: Path, rows: Sequence[Row]) -> Iterator[str]:
    for name in sorted({name for row in rows for name in row.values} - set(COLUMNS)):
        known = f"{suggestion(name, COLUMNS)}the columns are {', '.join(COLUMNS)}"
        yield f"{path}: column {name!r} is ignored; {known}"


def _without_ending(path: str) -> str:
    return PurePosixPath(path).with_suffix("").as_posix() if path else ""


def _named(clips: Sequence[Clip]) -> list[Clip]:
    """Give ids and groups to clips that have none."""
    times = Counter(clip.path for clip in clips if clip.path)
    named = []
    for clip in clips:
        name, group = _without_ending(clip.path) or clip.text or "", clip.group
        if times[clip.path] > 1:
            name += f"_{clip.start:.10g}-{'' if clip.end is None else f'{clip.end:.10g}'}"
            group = group or clip.path
        named.append(replace(clip, id=clip.id or name, group=group))
    return named


def _check_ids(clips: Sequence[Clip], rows: Sequence[Row], problems: RowProblems) -> None:
    first: dict[str, int] = {}
    for clip, row in zip(clips, rows, strict=True):
        before = first.setdefault(clip.id, row.number)
        if clip.id and before != row.number:
            problem = f"is that of row {before} already"
            problems.add(row.number, "id", problem, "give unique ids", value=clip.id)
