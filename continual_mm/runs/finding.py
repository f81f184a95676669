"""Where runs lie, finished or not; imports neither torch nor numpy."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from continual_mm.complaint import Complaint, RefusedError


def is_run(files: Iterable[str]) -> bool:
    """Whether a folder with these files is one of a run, finished or not."""
    return "definition.json" in files


def is_finished(folder: Path) -> bool:
    """Whether the run in a folder came to its end."""
    return (folder / "cost.json").is_file()


def is_export(files: Iterable[str]) -> bool:
    """Whether a folder with these files is one that ``export`` wrote."""
    return "definitions.json" in files


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """Folders of runs at or below some folders, finished or not, each once.

    Raises:
        RefusedError: If a folder is missing or cannot be listed.
    """
    return _find(folders, is_run)


def find_exports(folders: Iterable[Path]) -> list[Path]:
    """Folders of exported runs at or below some folders, each once.

    Raises:
        RefusedError: If a folder is missing or cannot be listed.
    """
    return _find(folders, is_export)


def _find(folders: Iterable[Path], wanted: Callable[[Iterable[str]], bool]) -> list[Path]:
    """Folders whose files are as wanted; nothing is looked for below them, or below a run."""
    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            remedy = "give the folder that runs went into"
            raise RefusedError(Complaint(str(folder), "no such folder", remedy))
        for here, below, files in os.walk(folder, onerror=_refuse_to_skip):
            below.sort()
            if is_run(files) or wanted(files):
                below.clear()
            if wanted(files):
                found.setdefault(Path(here).resolve(), Path(here))
    return list(found.values())


def _refuse_to_skip(error: OSError) -> None:
    """A folder that cannot be listed may hold runs; to leave them out would falsify the rest."""
    problem = f"cannot be read: {error.strerror}"
    raise RefusedError(Complaint(str(error.filename), problem)) from error
