"""One row of a manifest -> a clip; what is wrong with rows is collected and told at once."""

import csv
import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from io import StringIO
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple

from continual_mm.data.findings import FaultError, sound_text
from continual_mm.data.recognise import MEDIA_ENDINGS
from continual_mm.system.errors import InputError, Problem, first_few, suggestion

SPLITS: Mapping[str, int] = MappingProxyType(
    {"train": 0, "validation": 1, "val": 1, "valid": 1, "dev": 1, "test": 2}
)
"""Names of splits and the numbers that packs use for them."""

SILENCES = frozenset({"sil", "sp"})
"""What aligners write where nothing is said."""


class Word(NamedTuple):
    """A spoken word and when it is said, in seconds of its file."""

    word: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Clip:
    """Part of a media file, or all of it.

    Attributes:
        id: Its name, unique in the manifest.
        path: The file, relative to the manifest's folder, with forward slashes; empty for text
            that belongs to no film or sound, such as the name of a class.
        start: Seconds from the file's beginning.
        end: Seconds from the file's beginning; None for the file's end.
        text: What is said or shown, if known.
        words: What is said when, if known.
        split: 0 training, 1 validation, 2 test.
        group: What it belongs to (a long video, a speaker), if known.
        label: Its class, if known.
        fault: Why its file is not to be opened; empty if it is.
    """

    id: str
    path: str
    start: float = 0.0
    end: float | None = None
    text: str | None = None
    words: tuple[Word, ...] = ()
    split: int = 0
    group: str | None = None
    label: int | None = None
    fault: str = ""

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
    """Clips, checked.

    Attributes:
        folder: What their paths are relative to.
        clips: In the order of the file, or of the sorted paths.
        warnings: What was passed over, for people.
    """

    folder: Path
    clips: tuple[Clip, ...]
    warnings: tuple[str, ...] = ()


def hashed_split(key: str) -> int:
    """Deal something into training (80 %), validation or test (10 % each) by its name alone.

    What is added later changes nothing for what was there, on any machine.

    >>> [hashed_split(name) for name in ("a", "b", "c", "d", "e", "f", "g", "h")]
    [0, 0, 0, 2, 0, 0, 0, 0]
    """
    digest = blake2b(key.encode(), digest_size=8, person=b"split").digest()
    share = int.from_bytes(digest, "big") / 2**64
    return 0 if share < 0.8 else 1 if share < 0.9 else 2


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
        InputError: If the file cannot be read, is of no such kind, or is no table.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        problem = f"is no manifest: it ends with {path.suffix!r}"
        remedy = f"the endings are {', '.join(_READERS)}; a folder of media files needs none"
        raise InputError(Problem(str(path), problem, remedy))
    rows = list(reader(_file_text(path), str(path)))
    if not rows:
        raise InputError(Problem(str(path), "lists no clip", "give one row for each clip"))
    return rows


def _file_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
        raise InputError(Problem(str(path), problem)) from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        problem = f"is not UTF-8: byte 0x{raw[error.start]:02x} in line {line}"
        raise InputError(Problem(str(path), problem, "save it as UTF-8")) from error


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
                raise InputError(Problem(source, problem, "quote cells that hold a comma"))
            named = zip(header, cells, strict=False)
            yield Row(lines.line_num, _given({name: cell.strip() for name, cell in named}))
    except csv.Error as error:
        problem = f"line {lines.line_num} is no row of a table: {error}"
        raise InputError(Problem(source, problem)) from error


def _check_header(header: list[str], source: str, delimiter: str) -> None:
    others = [mark for mark in ",;\t|" if mark != delimiter and mark in "".join(header)]
    if len(header) == 1 and others:
        problem = f"its cells are parted by {others[0]!r}, not by {delimiter!r}"
        remedy = "part them by commas in a .csv, by tabs in a .tsv"
        raise InputError(Problem(source, problem, remedy))
    twice = [name for name, times in Counter(header).items() if times > 1]
    if twice:
        problem = f"its first line names {', '.join(map(repr, twice))} more than once"
        raise InputError(Problem(source, problem, "name every column once"))


def _list(text: str, source: str) -> Iterator[Row]:
    entries = _parsed(text, source, "")
    if not isinstance(entries, list):
        remedy = "a manifest is a list of objects, one for each clip"
        raise InputError(Problem(source, "holds no list", remedy))
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
        raise InputError(Problem(source, f"{where}is no JSON: {error}")) from error
    except ValueError as error:  # Python reads no number of more than some thousand digits
        problem = f"{where}holds a number of more digits than any number needs"
        raise InputError(Problem(source, problem, "write it shorter")) from error


def _object(entry: Any, source: str, where: str) -> Mapping[str, Any]:
    if not isinstance(entry, dict):
        problem = f"{where} is {type(entry).__name__}, not an object with the columns of a clip"
        raise InputError(Problem(source, problem))
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


class MediaFiles:
    """The media files in a folder.

    Args:
        folder: Where a manifest lies.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._real = folder.resolve()
        self._beside: dict[str, list[str]] = defaultdict(list)
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                name = PurePosixPath(entry.name)
                if name.suffix.lower() in MEDIA_ENDINGS:
                    self._beside[name.stem].append(entry.name)
        self._checked: dict[str, str] = {}

    def beside(self, name: str) -> list[str]:
        """Media files called so, apart from their endings."""
        return self._beside.get(name, [])

    def mistake(self, path: str) -> str:
        """Why a path can be meant by nobody; empty if it can."""
        pure = PurePosixPath(path)
        return "leaves the manifest's folder" if pure.is_absolute() or ".." in pure.parts else ""

    def fault(self, path: str) -> str:
        """Why a file is not to be had; empty if it is."""
        if path not in self._checked:
            self._checked[path] = self._fault(path)
        return self._checked[path]

    def _fault(self, path: str) -> str:
        try:
            real = (self._folder / path).resolve()
            if not real.is_relative_to(self._real):
                return "leaves the manifest's folder through a link"
            return "" if real.is_file() else "names no file"
        except (OSError, RuntimeError):
            return "cannot be followed"


def media_files_in(folder: Path) -> tuple[list[str], list[str]]:
    """All media files in a folder and the folders in it, sorted, relative to it.

    Those whose names begin with a point are left out: macOS puts one beside every film.

    Returns:
        The files, links to files among them; and what was passed over, in a line each.
    """
    names, passed_over = [], []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        is_media = path.suffix.lower() in MEDIA_ENDINGS
        if any(part[0] == "." for part in name.split("/")):
            continue
        if path.is_symlink() and path.is_dir():
            passed_over.append(f"{path} is a link to a folder and is not searched")
        elif is_media and (path.is_file() or path.is_symlink()):
            if _is_sound(name):
                names.append(name)
            else:
                passed_over.append(f"{str(path)!r} is passed over: its name is no UTF-8; rename it")
    return names, passed_over


def _is_sound(name: str) -> bool:
    try:
        sound_text("path", name)
    except FaultError:
        return False
    return True


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

    def problems(self) -> list[Problem]:
        """Everything that was found."""
        return [
            Problem(
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


def open_manifest(path: Path) -> Manifest:
    """The clips that a manifest file lists, or the media files of a folder, one clip each.

    In a file, ``path`` is relative to its folder and by default the one media file beside it that
    is called as the ``id``; ``id`` is by default the path without ending, with the times if the
    file has several clips. ``split`` is a name or a number; if no row has one, clips are dealt by
    the hash of their group, or of their id. A file with several clips is their group where none is
    given, so that clips of one video never lie in two splits.

    A row of ``text`` alone is a clip without film and sound, such as the name of a class. Where
    other rows mean files that are called as their ids, it has no ``id``, which is then its text. A
    file that is not there makes a clip that fails, of which there is a warning.

    Args:
        path: A ``.csv``, ``.tsv``, ``.json`` or ``.jsonl`` file, or a folder, which is searched
            with all folders in it.

    Raises:
        InputError: If anything is wrong with any row, with the rows' numbers; or if there is none
            of the files.
    """
    if path.is_dir():
        return _of_folder(path)
    rows = read_rows(path)
    files = MediaFiles(path.parent)
    reader = RowReader(str(path), files, by_ids=_are_by_ids(rows, files))
    clips = _named([reader.clip(row) for row in rows])
    _check_ids(clips, rows, reader.problems)
    if any("split" in row.values for row in rows):
        _check_splits(rows, reader.problems)
    else:
        clips = _dealt(clips)
    if reader.problems.problems() or _lack_all(clips):
        absent = reader.absent.problems() if _lack_all(clips) else []
        raise InputError([*reader.problems.problems(), *absent])
    told = (*_warnings(path, rows), *_told(reader.absent), *_alone(path, clips, rows))
    return Manifest(path.parent, tuple(clips), told)


def with_validation(manifest: Manifest) -> Manifest:
    """Deal a tenth of the training clips into validation, if no clip is; groups stay together.

    Published splits often have none, and it takes validation clips to choose a strategy's numbers.
    """
    if any(clip.split == 1 for clip in manifest.clips):
        return manifest
    clips = tuple(
        replace(clip, split=1)
        if clip.split == 0 and hashed_split(clip.group or clip.id) == 1
        else clip
        for clip in manifest.clips
    )
    return replace(manifest, clips=clips)


def _of_folder(folder: Path) -> Manifest:
    paths, passed_over = media_files_in(folder)
    if not paths:
        problem = "holds no media file"
        remedy = "give a folder of videos or sounds, or a manifest (.csv, .tsv, .json, .jsonl)"
        raise InputError(Problem(str(folder), problem, remedy))
    files = MediaFiles(folder)
    absent = Problems(str(folder))
    for number, path in enumerate(paths, 1):
        if fault := files.fault(path):
            absent.about(Row(number, {"path": path}), "path", fault)
    stems = Counter(_without_ending(path) for path in paths)
    named = ((path, _without_ending(path)) for path in paths)
    clips = [
        Clip(stem if stems[stem] == 1 else path, path, fault=files.fault(path))
        for path, stem in named
    ]
    if _lack_all(clips):
        raise InputError(absent.problems())
    return Manifest(folder, tuple(_dealt(clips)), (*passed_over, *_told(absent)))


def _are_by_ids(rows: list[Row], files: MediaFiles) -> bool:
    """Whether some row means the file that is called as its id."""
    return any(
        "path" not in row.values and files.beside(str(row.values.get("id", ""))) for row in rows
    )


def _lack_all(clips: list[Clip]) -> bool:
    """Whether there is none of the files."""
    faults = [clip.fault for clip in clips if clip.path]
    return bool(faults) and all(faults)


def _told(absent: Problems) -> tuple[str, ...]:
    return tuple(f"{problem.place}: {problem.message}" for problem in absent.problems())


def _alone(path: Path, clips: list[Clip], rows: list[Row]) -> tuple[str, ...]:
    """A word about rows that might have been meant to have files."""
    alone = [row for clip, row in zip(clips, rows, strict=True) if not clip.path]
    if not any("id" in row.values for row in alone):
        return ()
    some = "1 row is" if len(alone) == 1 else f"{len(alone):,} rows are"
    return (f"{path}: {some} text alone, without film and sound",)


def _without_ending(path: str) -> str:
    return PurePosixPath(path).with_suffix("").as_posix() if path else ""


def _warnings(path: Path, rows: list[Row]) -> tuple[str, ...]:
    unknown = sorted({name for row in rows for name in row.values} - set(COLUMNS))
    return tuple(
        f"{path}: column {name!r} is passed over; {suggestion(name, COLUMNS)}"
        f"the columns are {', '.join(COLUMNS)}"
        for name in unknown
    )


def _named(clips: list[Clip]) -> list[Clip]:
    """Give ids and groups to clips that have none."""
    times = Counter(clip.path for clip in clips if clip.path)
    return [
        replace(
            clip,
            id=clip.id or _default_id(clip, alone=times[clip.path] == 1),
            group=clip.group or (clip.path if times[clip.path] > 1 else None),
        )
        for clip in clips
    ]


def _default_id(clip: Clip, *, alone: bool) -> str:
    name = _without_ending(clip.path)
    if not name:
        return clip.text or ""
    if alone:
        return name
    return f"{name}_{clip.start:.10g}-{'' if clip.end is None else f'{clip.end:.10g}'}"


def _check_ids(clips: list[Clip], rows: list[Row], problems: Problems) -> None:
    first: dict[str, int] = {}
    for clip, row in zip(clips, rows, strict=True):
        if not clip.id:
            continue
        before = first.setdefault(clip.id, row.number)
        if before != row.number:
            given = Row(row.number, {"id": clip.id})
            problems.about(given, "id", f"is that of row {before} already", "give unique ids")


def _check_splits(rows: list[Row], problems: Problems) -> None:
    for row in rows:
        if "split" not in row.values:
            problems.about(row, "split", "is missing", "give a split for every clip or for none")


def _dealt(clips: list[Clip]) -> list[Clip]:
    return [replace(clip, split=hashed_split(clip.group or clip.id)) for clip in clips]
