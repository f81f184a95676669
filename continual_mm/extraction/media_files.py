"""The media files that a manifest may name: those in its folder, and no others."""

import os
from collections import defaultdict
from pathlib import Path, PurePosixPath

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

    def fault(self, path: str) -> str:
        """Why a path cannot be used; empty if it can."""
        if path not in self._checked:
            self._checked[path] = self._fault(path)
        return self._checked[path]

    def _fault(self, path: str) -> str:
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or "\0" in path:
            return "leaves the manifest's folder"
        try:
            real = (self._folder / pure).resolve()
            if not real.is_relative_to(self._real):
                return "leaves the manifest's folder through a link"
            return "" if real.is_file() else "names no file"
        except (OSError, RuntimeError):
            return "cannot be followed"


def media_files_in(folder: Path) -> list[str]:
    """All media files in a folder and the folders in it, sorted, relative to it.

    Those whose names begin with a point are left out: macOS puts one beside every film.
    """
    found = (path for path in folder.rglob("*") if path.suffix.lower() in MEDIA_ENDINGS)
    names = sorted(path.relative_to(folder).as_posix() for path in found if path.is_file())
    return [name for name in names if not any(part[0] == "." for part in name.split("/"))]
