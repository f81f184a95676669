"""A folder for each modality with an ``.npy`` for each item, as features are often published."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.lib.format as npy
from numpy.typing import NDArray

from continual_mm.data.archive import UNREADABLE
from continual_mm.data.schema import Record
from continual_mm.data.table_files import SPLIT_NAMES
from continual_mm.definitions.modality import SPLITS, Kind, Modality
from continual_mm.preparation.formats.features import Floats, finite
from continual_mm.preparation.formats.recipe import skipping
from continual_mm.system.errors import InputError, Problems, first_few, first_line

MSRVTT_IMAGEBIND = "RichyHu999/msrvtt-imagebind-features"
"""ImageBind's vectors of the sights and sounds of MSR-VTT's clips, on the Hugging Face Hub."""

_MSRVTT = re.compile(r"video(\d{1,4})")
_MSRVTT_VALIDATION, _MSRVTT_TEST = 6513, 7010  # the numbers at which the splits begin

_COMPARED = 100  # files of which most are of the right form, so that no odd one decides

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


def notes(folder: Path, modalities: Sequence[str], split_of: Mapping[str, int]) -> Iterator[str]:
    """What nobody may expect: files that are not read, and splits by a word within a name."""
    unread, guessed = list[str](), dict[str, None]()
    for path in sorted(folder.rglob("*.npy")):
        place = path.relative_to(folder)
        words = _words(path, folder)
        if not any({name, f"{name}s"} & words for name in modalities):
            unread.append(place.as_posix())
        elif path.stem in split_of and words & SPLIT_NAMES.keys() and not _is_called(place):
            guessed[f"{place.parent.as_posix()} ({SPLITS[split_of[path.stem]]})"] = None
    if unread:
        yield f"not read, since no folder is called as a modality: {first_few(unread)}"
    if guessed:
        yield f"taken for a split by a word in a folder's name: {first_few([*guessed])}"


def _is_called(place: Path) -> bool:
    return any(part.lower() in SPLIT_NAMES for part in place.parts[:-1])


def layout(items: Files, modalities: Sequence[str]) -> tuple[Modality, ...]:
    """What most of the first files of each modality are: vectors, or frames read in order.

    Raises:
        InputError: If none of a modality's can be read.
    """
    found = []
    for name in modalities:
        paths = (of_item[name] for of_item in items.values() if name in of_item)
        forms: Counter[tuple[Kind, tuple[int, ...]]] = Counter()
        faults = Problems()
        for path in islice(paths, _COMPARED):
            with faults.collected():
                values = _read(path)
                if values.ndim == 1:
                    forms[Kind.VECTOR, values.shape] += 1
                else:
                    forms[Kind.FRAMES, (1, *values.shape[1:])] += 1
        if not forms:
            raise InputError(faults[0])
        ((kind, shape), _), *_ = forms.most_common(1)
        found.append(Modality(name, kind, shape))
    return tuple(found)


def splits(items: Files, folder: Path, *, msrvtt: bool = False) -> dict[str, int]:
    """The split of every item: that of a folder which is called as one, else training.

    With ``msrvtt`` items that no folder puts elsewhere have that split which MSR-VTT gives them.
    """
    return {name: _split(name, folder, of_item, msrvtt) for name, of_item in items.items()}


def records(
    items: Files,
    split_of: Mapping[str, int],
    expected: Sequence[Modality],
    left_out: Problems | None,
) -> Iterator[Record]:
    """An item for each id."""
    in_time = {one.name for one in expected if one.kind.has_length}
    for name, of_item in items.items():
        with skipping(left_out):
            values = {modality: _read(path) for modality, path in of_item.items()}
            # One frame looks like a vector.
            for modality in in_time & values.keys():
                if values[modality].ndim == 1:
                    values[modality] = values[modality][None]
            yield {"ids": name, "split": split_of[name], **values}


def _words(path: Path, folder: Path) -> set[str]:
    """The names of the folders that a file lies in, below one, and the words in them."""
    parts = path.relative_to(folder).parts[:-1]
    return {word for part in parts for word in (part, *re.split("[^a-z]+", part.lower()))}


def _split(name: str, folder: Path, of_item: Mapping[str, Path], msrvtt: bool) -> int:
    words = set.union(*(_words(path, folder) for path in of_item.values()))
    if said := words & SPLIT_NAMES.keys():
        return max(SPLIT_NAMES[word] for word in said)
    match = _MSRVTT.fullmatch(name) if msrvtt else None
    number = int(match[1]) if match else 0
    return (number >= _MSRVTT_VALIDATION) + (number >= _MSRVTT_TEST)


def _read(path: Path) -> Floats:
    """An array of floats, without axes of one step before its features."""
    if not path.is_file():  # reading a pipe would wait for its writer
        raise InputError.at(path, "is no regular file", "give an array as numpy.save writes it")
    try:
        with path.open("rb") as stream:
            values: NDArray[np.generic] = npy.read_array(stream, allow_pickle=False)
    except UNREADABLE as error:
        problem = f"cannot be read: {first_line(error)}"
        raise InputError.at(path, problem, "give an array as numpy.save writes it") from error
    found = finite(values, str(path))
    return found.reshape(-1) if found.ndim > 1 and found.size == found.shape[-1] else found
