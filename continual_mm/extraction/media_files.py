"""The media files that a manifest may name: those in its folder, and no others."""

import os
from collections import defaultdict
from pathlib import Path, PurePosixPath

from continual_mm.data.store.checks import FaultError, sound_text
from continual_mm.data.stranger_files import MEDIA_ENDINGS


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
