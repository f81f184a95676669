"""Packs of built-in datasets in the user's cache folder, each made once."""

import os
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from continual_mm.data.archive import UNREADABLE
from continual_mm.system.errors import InputError
from continual_mm.system.files import atomic_write

CACHE_VARIABLE = "CONTINUAL_MM_CACHE"
"""Environment variable that names another cache folder than the user's."""


def cache_folder() -> Path:
    """The user's cache folder, or the one that ``CONTINUAL_MM_CACHE`` names."""
    return Path(os.environ.get(CACHE_VARIABLE) or user_cache_path("continual_mm"))


def cached_pack(
    name: str, modalities: Collection[str], make: Callable[[], Mapping[str, NDArray[np.generic]]]
) -> Path:
    """The feature pack of these modalities in the cache; made first where it is missing or damaged.

    The name, without its ending, must change whenever a byte of the pack does.
    """
    path = cache_folder() / f"{name}.npz"
    if not _is_whole(path, modalities):
        try:
            with atomic_write(path) as temporary, temporary.open("wb") as stream:
                np.savez(stream, allow_pickle=False, **make())
        except OSError as error:
            raise no_cache(path.parent, error) from error
    return path


def no_cache(folder: Path, error: OSError) -> InputError:
    """The error where the cache folder cannot be written."""
    remedy = f"set {CACHE_VARIABLE} to a folder that can be written"
    return InputError.at(folder, f"no cache ({error})", remedy)


def _is_whole(path: Path, modalities: Collection[str]) -> bool:
    """Whether a file is there, has every modality, and no byte of it was lost or changed."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {f"{name}.npy" for name in modalities}
            return members <= set(archive.namelist()) and archive.testzip() is None
    except UNREADABLE:
        return False
