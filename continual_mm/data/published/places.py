"""Files that a list names: only those that really lie in the folder that the user gave."""

import csv
from pathlib import Path, PurePosixPath

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.findings import first_few
from continual_mm.data.pickles.fault import shown

_NOWHERE = "None/"
"""What the published list puts before the paths of videos without a category."""


def read_list(path: Path) -> tuple[str, ...]:
    """The videos of a path list, as paths below the folder of features.

    Args:
        path: A csv or txt with the header ``path``, rows such as
            ``food_and_entertaining/video_j/jEyaTUyJ-rs``; or HowTo100M's own csv, in which the
            column ``video_id`` names the video where ``path`` names only its folder, or none.

    Raises:
        RefusedError: If it cannot be read or has neither column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or ()
            rows = list(reader) if {"path", "video_id"} & set(columns) else []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        problem = f"cannot be read: {error}"
        raise RefusedError(Complaint(str(path), problem)) from error
    if not {"path", "video_id"} & set(columns):
        named = first_few([shown(column) for column in columns]) or "(none)"
        problem = f"has the columns {named}"
        raise RefusedError(Complaint(str(path), problem, "one of them must be path or video_id"))
    return tuple(listed for row in rows if (listed := _listed(row)))


def inside(folder: Path, relative: str) -> Path:
    """A file below a folder; no list leads out of it.

    Args:
        folder: Where to look.
        relative: The path below it, with slashes.

    Raises:
        RefusedError: If the path is absolute, goes up, or comes out elsewhere through a link.
    """
    parts = PurePosixPath(relative)
    unsafe = parts.is_absolute() or ".." in parts.parts or "\\" in relative or "\0" in relative
    if unsafe or not parts.parts or ":" in parts.parts[0]:
        problem = f"'{shown(relative)}' does not name a file below it"
        raise RefusedError(Complaint(str(folder), problem, "paths go down from the folder"))
    found = folder / parts
    if not _resolved(found).is_relative_to(_resolved(folder)):
        problem = f"'{shown(relative)}' leads out of it"
        raise RefusedError(Complaint(str(folder), problem, "copy what the link points to"))
    return found


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # links that lead round in a circle
        problem = "cannot be found: its links lead nowhere"
        raise RefusedError(Complaint(shown(str(path)), problem)) from error


def _listed(row: dict[str, str]) -> str:
    path = (row.get("path") or "").strip().removeprefix(_NOWHERE)
    video = (row.get("video_id") or "").strip()
    if not video or PurePosixPath(path).name in (video, f"{video}.mp4"):
        return str(PurePosixPath(path).with_name(video)) if video else path
    return str(PurePosixPath(path) / video) if path else video
