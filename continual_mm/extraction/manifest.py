"""From the rows of a manifest, or the files of a folder, to clips; told at once what is wrong."""

from collections import Counter
from dataclasses import replace
from pathlib import Path, PurePosixPath

from continual_mm.complaint import Complaint, RefusedError, suggestion
from continual_mm.extraction.clips import Clip, Manifest, hashed_split
from continual_mm.extraction.manifest_file import Row, read_rows
from continual_mm.extraction.manifest_rows import COLUMNS, Problems, RowReader
from continual_mm.extraction.media_files import MediaFiles, media_files_in


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
        RefusedError: If anything is wrong with any row, with the rows' numbers; or if there is none
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
    if reader.problems.complaints() or _lack_all(clips):
        absent = reader.absent.complaints() if _lack_all(clips) else []
        raise RefusedError([*reader.problems.complaints(), *absent])
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
        raise RefusedError(Complaint(str(folder), problem, remedy))
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
        raise RefusedError(absent.complaints())
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
    return tuple(f"{complaint.place}: {complaint.problem}" for complaint in absent.complaints())


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
