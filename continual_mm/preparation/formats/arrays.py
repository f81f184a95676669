"""A folder for each modality with an ``.npy`` for each item, as features are often published."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.archive import UNREADABLE
from continual_mm.data.hugging_face import SPLIT_NAMES
from continual_mm.data.schema import Record
from continual_mm.definitions.modality import Kind
from continual_mm.preparation.formats.features import Floats, finite
from continual_mm.preparation.formats.recipe import skipping
from continual_mm.system.errors import InputError, Problems, first_line

MSRVTT_IMAGEBIND = "RichyHu999/msrvtt-imagebind-features"
"""ImageBind's vectors of the sights and sounds of MSR-VTT's clips, on the Hugging Face Hub."""

_MSRVTT = re.compile(r"video(\d{1,4})")
_MSRVTT_VALIDATION, _MSRVTT_TEST = 6513, 7010  # the numbers at which the splits begin

Files = Mapping[str, Mapping[str, Path]]
"""Id of an item -> modality -> its file."""


def patterns(modalities: Sequence[str]) -> list[str]:
    """Which files of a repository are needed."""
    return [f"*{name}*/*.npy" for name in modalities]


def files(folder: Path, modalities: Sequence[str]) -> dict[str, dict[str, Path]]:
    """The files of every item: ``<id>.npy`` in a folder whose name has a modality among its words.

    Raises:
        InputError: If a modality has no file, a file two modalities, or an item two files of one.
    """
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.rglob("*.npy")):
        words = _words(path, folder)
        of_path = [name for name in modalities if {name, f"{name}s"} & words]
        if len(of_path) > 1:
            problem = f"is in a folder of {' and '.join(of_path)}"
            raise InputError.at(path, problem, "give each modality a folder of its own")
        for name in of_path:
            other = found.setdefault(path.stem, {}).setdefault(name, path)
            if other != path:
                problem = f"{name} of item {path.stem!r} is there twice, in {other.parent} too"
                raise InputError.at(path, problem, "give a folder with one file for each item")
    for name in modalities:
        if not any(name in of_item for of_item in found.values()):
            problem = f"has no {name}/<item>.npy"
            remedy = "lay the files of each modality into a folder that is called so"
            raise InputError.at(folder, problem, remedy)
    return found


def kinds(items: Files, modalities: Sequence[str]) -> dict[str, Kind]:
    """What each modality is, by its first file: vectors, or frames that are read in order."""
    found = {}
    for name in modalities:
        path = next(of_item[name] for of_item in items.values() if name in of_item)
        found[name] = Kind.VECTOR if _read(path).ndim == 1 else Kind.FRAMES
    return found


def splits(items: Files, folder: Path) -> dict[str, int]:
    """The split of every item: a folder's that is called as one, or MSR-VTT's; else training."""
    return {name: _split(name, folder, of_item) for name, of_item in items.items()}


def records(
    items: Files, split_of: Mapping[str, int], left_out: Problems | None
) -> Iterator[Record]:
    """An item for each id."""
    for name, of_item in items.items():
        with skipping(left_out):
            values = {modality: _read(path) for modality, path in of_item.items()}
            yield {"ids": name, "split": split_of[name], **values}


def _words(path: Path, folder: Path) -> set[str]:
    """The words in the names of the folders that a file lies in, below one."""
    parts = path.relative_to(folder).parts[:-1]
    return {word for part in parts for word in re.split("[^a-z]+", part.lower())}


def _split(name: str, folder: Path, of_item: Mapping[str, Path]) -> int:
    words = set.union(*(_words(path, folder) for path in of_item.values()))
    if said := words & SPLIT_NAMES.keys():
        return max(SPLIT_NAMES[word] for word in said)
    match = _MSRVTT.fullmatch(name)
    number = int(match[1]) if match else 0
    return (number >= _MSRVTT_VALIDATION) + (number >= _MSRVTT_TEST)


def _read(path: Path) -> Floats:
    """An array of floats, without axes of one step before its features."""
    try:
        values: NDArray[np.generic] = np.load(path, allow_pickle=False)
    except UNREADABLE as error:
        problem = f"cannot be read: {first_line(error)}"
        raise InputError.at(path, problem, "give an array as numpy.save writes it") from error
    found = finite(values, str(path))
    return found.reshape(-1) if found.ndim > 1 and found.size == found.shape[-1] else found
