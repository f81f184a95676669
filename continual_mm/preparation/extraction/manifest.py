"""Manifests of clips, read and checked as a whole: all mistakes are reported at once."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from hashlib import blake2b
from itertools import islice
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import pydantic
from pydantic.dataclasses import dataclass as checked_dataclass

from continual_mm.data.recognise import CLOUD_ENDINGS, MEDIA_ENDINGS
from continual_mm.preparation.extraction.published import COLUMNS, Columns
from continual_mm.preparation.extraction.rows import Row, read_rows
from continual_mm.system.errors import InputError, Problem, first_few, printable
from continual_mm.system.reading import reads

SPLITS: Mapping[str, int] = MappingProxyType(
    {"train": 0} | dict.fromkeys(("validation", "val", "valid", "validate", "dev"), 1) | {"test": 2}
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
    return SPLITS.get(str(value).strip().lower(), _no_bool(value))


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
    cloud: _Text = ""  # a point cloud of what the file shows, relative to the manifest's folder
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


_ENDINGS = MEDIA_ENDINGS | CLOUD_ENDINGS
_NO_FILE = "names no file"
_OF_FILES = ("start", "end", "words")  # what is said of a clip that has a file
_TIME = "is no time", "give seconds from the file's beginning, such as 61.5 for 1:01.5"
_TEXT = "is no valid text", "give a string without NUL characters and lone surrogates"
_EXPECTED: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(("id", "path", "text", "group", "cloud"), _TEXT),
        **dict.fromkeys(("start", "end"), _TIME),
        "words": ("is no list of words", "each is [word, start, end]"),
        "split": ("is no split", f"the splits are {', '.join(SPLITS)}, 0, 1, 2"),
        "label": ("is no whole number", "number the classes from 0"),
    }
)
"""Of each column, what is said of a value that is not valid, and the remedy."""

_MOST_FILES = 1_000_000  # below a list that are looked up by their names
_LOOKED_AT = 1000  # rows by which a column of unknown name may be found to name files

_CLIP = pydantic.TypeAdapter(Clip)


class RowProblems:
    """What is wrong, by column; rows with the same problem share one message."""

    def __init__(self, source: str, shown: Mapping[str, str] = MappingProxyType({})) -> None:
        self._source, self._shown = source, shown  # what columns are called where not as here
        self._rows: dict[tuple[str, str, str], dict[str, None]] = defaultdict(dict)

    def add(
        self,
        number: int,
        column: str,
        problem: str,
        remedy: str = "",
        *,
        value: object = None,
        there: str = "",
    ) -> None:
        """Something is wrong with the value in a column of a row; what is ``there`` is near it."""
        near = f", but {there!r} is there" if there else ""
        shown = "" if value is None else f" ({str(value)[:60]!r}{near})"
        # Several captions of a row have one value in common.
        self._rows[column, problem, remedy][f"{number}{shown}"] = None

    def all(self) -> list[Problem]:
        """Everything that was added."""
        return [
            Problem(
                f"{self._source}, column {self._shown.get(column, column)!r}",
                f"{problem} in {'row' if len(rows) == 1 else 'rows'} {first_few([*rows])}",
                remedy,
            )
            for (column, problem, remedy), rows in self._rows.items()
        ]


class MediaFiles:
    """The media files below a folder, looked up by name; it is searched when first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def called(self, name: str) -> list[str]:
        """Those of a name, with or without the ending; those in the folder itself, if any are."""
        found = self._by_name.get(name, [])
        return [path for path in found if "/" not in path] or found

    def like(self, name: str) -> str:
        """The one that differs in spaces, case or Unicode's form alone; empty if there is none."""
        found = self._by_form.get(_form(PurePosixPath(name).name), [])
        return found[0] if len(found) == 1 else ""

    @cached_property
    def _by_name(self) -> Mapping[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for path in sorted(islice(self._folder.rglob("*"), _MOST_FILES)):
            name = path.relative_to(self._folder)
            if path.suffix.lower() in _ENDINGS and not any(p[0] == "." for p in name.parts):
                for key in {path.name, path.stem}:
                    found[key].append(name.as_posix())
        return found

    @cached_property
    def _by_form(self) -> Mapping[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for name, paths in self._by_name.items():
            found[_form(name)] += paths
        return found


def _form(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip().casefold()


class _Reading:
    """Rows of a manifest as clips; ``problems`` refuse it, ``absent`` ones fail their clips."""

    def __init__(
        self, source: str, folder: Path, rows: Sequence[Row], columns: Columns | None
    ) -> None:
        shown = columns.shown if columns else {}
        self.problems, self.absent = RowProblems(source, shown), RowProblems(source, shown)
        self.below, self.cut = list[str](), list[str]()  # files found in folders, and of clips
        self._folder = folder.resolve()
        self._files = MediaFiles(folder)
        self._names_videos = columns is not None and columns.names_videos
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in _ENDINGS:
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
        for column, named in (("path", clip.path), ("cloud", clip.cloud)):
            path = PurePosixPath(named)
            if path.is_absolute() or ".." in path.parts:
                problem, remedy = "leaves the manifest's folder", "give files in it, relative to it"
                self.problems.add(row.number, column, problem, remedy, value=named)
                return clip
        if clip.cloud:
            clip = self._with_cloud(clip, row)
        if clip.path:
            return self._with_path(replace(clip, path=PurePosixPath(clip.path).as_posix()), row)
        return clip if wrong & {"id", "path"} else self._without_path(clip, row)

    def _with_cloud(self, clip: Clip, row: Row) -> Clip:
        """The clip, which fails if its cloud is not there; alone, it is the clip's file."""
        if not clip.path:
            return replace(clip, path=clip.cloud, cloud="")
        if fault := self._fault(clip.cloud):
            self.absent.add(row.number, "cloud", fault, value=clip.cloud)
            return replace(clip, fault=f"has a cloud that {fault}: {clip.cloud}")
        return clip

    def _with_path(self, clip: Clip, row: Row) -> Clip:
        """The clip with the file that its path names, if need be in a folder below."""
        for name in self._names_of_clip(clip):
            if len(found := self._files.called(name)) == 1:
                self.cut += found
                return self._with_file(replace(clip, start=0.0, end=None), row, "path", found[0])
        if self._fault(clip.path) == _NO_FILE and "/" not in clip.path:
            names = (clip.path, f"Y{clip.path}") if self._names_videos else (clip.path,)
            found = next(filter(None, map(self._files.called, names)), [])
            if len(found) > 1:
                problem = "is the name of several media files below it"
                self.problems.add(
                    row.number, "path", problem, "give their folders", value=clip.path
                )
                return clip
            self.below += [name for name in found if "/" in name]
            return self._with_file(clip, row, "path", found[0] if found else clip.path)
        return self._with_file(clip, row, "path", clip.path)

    def _names_of_clip(self, clip: Clip) -> Iterator[str]:
        """What the file of a clip alone is called, of a video that is known by its name.

        By Kinetics, VGGSound, and MSVD or AudioSet.
        """
        if self._names_videos and "/" not in clip.path and (clip.start or clip.end):
            start, end = f"{clip.start:.10g}", f"{clip.end or 0.0:.10g}"
            yield f"{clip.path}_{int(clip.start):06d}_{int(clip.end or 0):06d}"
            yield f"{clip.path}_{int(clip.start):06d}"
            yield f"{clip.path}_{start}_{end}"

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
            problem, there = "is the name of no media file beside it", self._files.like(clip.id)
            self.absent.add(row.number, "id", problem, "give 'path'", value=clip.id, there=there)
            return replace(clip, path=clip.id, fault="names no media file beside the manifest")
        return clip

    def _with_file(self, clip: Clip, row: Row, column: str, path: str) -> Clip:
        fault = self._fault(path)
        if fault:
            there = self._files.like(path) if fault == _NO_FILE else ""
            self.absent.add(row.number, column, fault, value=row.values[column], there=there)
        return replace(clip, path=path, fault=fault or clip.fault)

    def _uncached_fault(self, path: str) -> str:
        """Why a file is not to be opened; empty if it is."""
        try:
            real = (self._folder / path).resolve()
            if not real.is_relative_to(self._folder):
                return "leaves the manifest's folder through a link"
            return "" if real.is_file() else _NO_FILE
        except (OSError, RuntimeError):
            return "cannot be followed"


@reads
def open_manifest(path: Path, columns: Mapping[str, Sequence[str]] | None = None) -> Manifest:
    """The clips that a manifest file lists, or the media files in a folder, one clip each.

    ``path`` is relative to the file's folder, by default that of the one media file beside it that
    is called as the ``id``; a name without folder or ending may be that of one file below. An id is
    by default the path without ending, with the times if the file has several clips, and with a
    number if a clip has several rows, one for each caption. Rows of one file are a group where none
    is given, so that they never lie in two splits. Where no row has a ``split``, the hash of the
    group or id decides.

    Of published lists columns of other names are read, and a warning says which; ``columns``
    (ours -> theirs, none for what is not to be read) decides otherwise. Classes that have names are
    numbered in their order, and named by the text where there is no other.

    A row of ``text`` alone is a clip without a file, such as the name of a class. A file that is
    not there makes a clip that fails, and a warning; an InputError only if all are missing.
    """
    if path.is_dir():
        rows, warnings = _media_rows(path)
        return _opened(path, path, rows, warnings)
    listed, names = read_rows(path)
    files = MediaFiles(path.parent)
    chosen = _with_path_column(Columns.of(names, columns or {}, path), listed, files)
    rows = [
        Row(row.number, values, number)
        for row in listed
        for number, values in _counted(chosen.rows(row.values))
    ]
    warnings = [*chosen.remarks(path), *_number_classes(path, rows)]
    try:
        return _opened(path, path.parent, rows, warnings, chosen)
    except InputError as error:
        if chosen.is_plain:
            raise
        raise InputError([*error.problems, chosen.problem(path)]) from error


def _opened(
    path: Path,
    folder: Path,
    rows: Sequence[Row],
    warnings: list[str],
    columns: Columns | None = None,
) -> Manifest:
    reading = _Reading(str(path), folder, rows, columns)
    clips = _named([reading.clip(row) for row in rows], rows)
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
    warnings += [f"{problem.place}: {problem.message}" for problem in absent]
    for what, found in (
        ("found in folders below", reading.below),
        ("files of one clip, whose times are left out", reading.cut),
    ):
        if different := list(dict.fromkeys(found)):
            warnings.append(f"{path}: {what}: {first_few(different)}")
    alone = [row for clip, row in zip(clips, rows, strict=True) if not clip.path]
    if any("id" in row.values for row in alone):  # which may have been meant to have files
        some = "1 row is" if len(alone) == 1 else f"{len(alone):,} rows are"
        warnings.append(f"{path}: {some} text alone, without video and audio")
    return Manifest(folder, tuple(clips), tuple(warnings))


def _counted(captions: Iterator[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows for each caption of one, numbered from 1 if there are several."""
    listed = list(captions)
    yield from enumerate(listed, 1) if len(listed) > 1 else ((0, one) for one in listed)


def _with_path_column(columns: Columns, rows: Sequence[Row], files: MediaFiles) -> Columns:
    """The columns; where neither path nor id name files, one whose values do is the path."""

    def names_files(column: str) -> bool:
        values = [row.values[column] for row in rows[:_LOOKED_AT] if column in row.values]
        found = sum(isinstance(one, str) and len(files.called(one)) == 1 for one in values)
        return found * 2 > len(values)

    if "path" in columns.read or any(map(names_files, columns.read.get("id", ()))):
        return columns
    for name in filter(names_files, columns.unused):
        return replace(columns, read={**columns.read, "path": (name,)})
    return columns


def _number_classes(path: Path, rows: list[Row]) -> list[str]:
    """Put numbers in place of names of classes, if all labels are names; say so."""
    labels = [row.values["label"] for row in rows if "label" in row.values]
    if not labels or not all(isinstance(label, str) and not _is_number(label) for label in labels):
        return []
    numbers = {name: number for number, name in enumerate(sorted(set(labels)))}
    untold = not any("text" in row.values for row in rows)
    for place, row in enumerate(rows):
        if name := row.values.get("label"):
            values = {**row.values, "label": numbers[name]} | ({"text": name} if untold else {})
            rows[place] = row._replace(values=values)
    also = ", which are the text" if untold else ""
    return [f"{path}: classes are numbered from 0 to {len(numbers) - 1} by their names{also}"]


def _is_number(text: str) -> bool:
    try:
        return bool(float(text)) or True
    except ValueError:
        return False


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
    paths, links, unsound, others = [], list[str](), list[str](), list[str]()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if any(part[0] == "." for part in name.split("/")):
            continue
        if path.is_symlink() and path.is_dir():
            links.append(str(path))
        elif path.suffix.lower() in _ENDINGS and (path.is_file() or path.is_symlink()):
            try:
                paths.append(_valid_text(name))
            except ValueError:
                unsound.append(repr(str(path)))
        elif path.is_file():
            others.append(printable(name))
    if not paths:
        remedy = "give a folder of videos or audio files, or a manifest (.csv, .tsv, .json, .jsonl)"
        raise InputError.at(folder, "holds no media file", remedy)
    stems = Counter(map(_without_ending, paths))
    ids = [path if stems[_without_ending(path)] > 1 else _without_ending(path) for path in paths]
    pairs = zip(ids, paths, strict=True)
    rows = [Row(number, {"id": name, "path": path}) for number, (name, path) in enumerate(pairs, 1)]
    reasons = (
        (unsound, "ignored, since the name is no UTF-8; rename it"),
        (links, "not searched, since they are links to folders"),
        (others, "not read, being neither video nor audio; a list of clips is read if it is named"),
    )
    warnings = [f"{folder}: {reason}: {first_few(names)}" for names, reason in reasons if names]
    return rows, warnings


def _without_ending(path: str) -> str:
    named = PurePosixPath(path)
    return named.with_suffix("").as_posix() if named.name else path


def _named(clips: Sequence[Clip], rows: Sequence[Row]) -> list[Clip]:
    """Give ids to clips that have none, numbers to captions, and groups to rows of a file."""
    same_file = Counter(clip.path for clip in clips if clip.path)
    times: dict[str, set[tuple[float, float | None]]] = defaultdict(set)
    for clip in clips:
        times[clip.path].add((clip.start, clip.end))
    names = []
    for clip in clips:
        name = clip.id or _without_ending(clip.path) or clip.text or ""
        if not clip.id and clip.path and len(times[clip.path]) > 1:
            name += f"_{clip.start:.10g}-{'' if clip.end is None else f'{clip.end:.10g}'}"
        names.append(name)
    same_name = Counter(
        name for name, clip, row in zip(names, clips, rows, strict=True) if _is_caption(clip, row)
    )
    seen = Counter[str]()
    named = []
    for name, clip, row in zip(names, clips, rows, strict=True):
        own = name
        if _is_caption(clip, row) and same_name[name] > 1:
            seen[name] += 1
            own = f"{name}#{seen[name]}"
        group = clip.group
        if clip.path and same_file[clip.path] > 1:
            group = group or clip.path
        elif row.caption:
            group = group or name
        named.append(replace(clip, id=own, group=group))
    return named


def _is_caption(clip: Clip, row: Row) -> bool:
    """Whether a row may be one of several for the same clip, whose ids need a number."""
    return row.caption > 0 or (bool(clip.path) and not clip.id)


def _check_ids(clips: Sequence[Clip], rows: Sequence[Row], problems: RowProblems) -> None:
    first: dict[str, int] = {}
    for clip, row in zip(clips, rows, strict=True):
        before = first.setdefault(clip.id, row.number)
        if clip.id and before != row.number:
            problem, remedy = "is that of an earlier row", "give unique ids, or none"
            problems.add(row.number, "id", problem, remedy, value=clip.id)
