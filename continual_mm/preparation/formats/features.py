"""From rows of 2D and 3D features to what the published models see of a clip."""

import csv
import math
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.archive import Archive
from continual_mm.data.findings import Findings
from continual_mm.preparation.formats.machine.fault import shown
from continual_mm.preparation.formats.recipe import Mode
from continual_mm.system.errors import InputError, Problem, first_few

Array = NDArray[np.float32]

_LEAST_NORM = np.float32(1e-12)


def largest(features: NDArray[np.floating[Any]]) -> Array | None:
    """The largest value of each feature over time: (time, features) -> (features,).

    Returns:
        None if there is no time step.
    """
    if not len(features):
        return None
    values: Array = features.max(axis=0).astype(np.float32)
    return values


def unit(vectors: NDArray[np.floating[Any]]) -> Array:
    """Divide by the Euclidean norm over the last axis; zeros stay zeros."""
    values = vectors.astype(np.float32)
    norms = np.linalg.norm(values, axis=-1, keepdims=True)
    scaled: Array = values / np.maximum(norms, _LEAST_NORM)
    return scaled


def halves(
    first: NDArray[np.floating[Any]] | None,
    second: NDArray[np.floating[Any]] | None,
    *,
    sizes: tuple[int, int],
    mode: Mode,
) -> Array | None:
    """Join the 2D and the 3D half of a clip, each of norm 1, so that a whole one has norm √2.

    Args:
        first: (2D features,), or None if the clip has none.
        second: (3D features,), or None.
        sizes: How many features each half has.
        mode: Where both are None, ``reference`` gives zeros and ``robust`` None: the clip lacks the
            modality. One that is None is zeros in either.

    Returns:
        (2D features + 3D features,).
    """
    if first is None and second is None and mode == "robust":
        return None
    parts = [
        np.zeros(size, np.float32) if half is None else unit(half)
        for half, size in zip((first, second), sizes, strict=True)
    ]
    return np.concatenate(parts)


def steps(first: NDArray[np.floating[Any]], second: NDArray[np.floating[Any]]) -> Array:
    """Join 2D and 3D features step by step, each half of each step of norm 1.

    The step of the 2D half is the one nearest below the 3D step, as ``interpolate`` of torch takes
    it by default and the fusion transformer's reader uses it.

    Args:
        first: (2D steps, 2D features), at least one step.
        second: (3D steps, 3D features).

    Returns:
        (3D steps, 2D features + 3D features).
    """
    nearest = np.arange(len(second)) * len(first) // max(len(second), 1)
    return np.concatenate([unit(first[nearest]), unit(second)], axis=-1)


MOST_FEATURES = 1 << 16
"""In one step of time; an array without any step could claim any number in a few bytes."""

MOST_VALUES = 1 << 30
"""More would be days of video: it is a small file that was made to fill the memory."""


def read_array(path: Path, key: str, *, axis: int = 1) -> NDArray[np.floating[Any]]:
    """Read a two-dimensional float array; nothing in the file is unpickled.

    Args:
        path: An .npz file.
        key: The array's name in it.
        axis: The axis of features, which are at least one; time may be nothing.

    Raises:
        InputError: If the file is missing, damaged or without the array, or if this is none of
            finite floats.
    """
    findings = Findings(str(path))
    with Archive(path, findings) as archive:
        header = archive.headers.get(key)
        if header is None:
            if key not in findings.faulty:
                has = ", ".join(sorted(archive.headers)) or "no array"
                findings.about(key, "is missing", f"the file has {has}")
        elif header.dtype.kind != "f" or len(header.shape) != 2 or not header.shape[axis]:
            problem = f"is {header.dtype} of shape {header.shape}"
            findings.about(key, problem, "two axes of floats are needed")
        elif math.prod(header.shape) > MOST_VALUES or header.shape[axis] > MOST_FEATURES:
            findings.about(key, f"has shape {header.shape}", "it is beyond all use")
        findings.refuse()
        array = archive.read(key)
    findings.refuse()
    return sound(array, f"{path}, column {key!r}")


def sound(array: NDArray[Any] | None, place: str) -> NDArray[np.floating[Any]]:
    """Pass a float array on, if all of it is finite in float32.

    Args:
        array: The values.
        place: Where they are from, for the problem.

    Raises:
        InputError: If it is none, or not finite.
    """
    if array is None or array.dtype.kind != "f":
        raise InputError(Problem(place, "is no float array", "store numbers"))
    if array.size > MOST_VALUES:
        raise InputError(Problem(place, f"has shape {array.shape}", "it is beyond all use"))
    with np.errstate(over="ignore"):
        wrong = int((~np.isfinite(array.astype(np.float32, copy=False))).sum())
    if wrong:
        problem = f"{wrong} of {array.size} values are not finite in float32"
        raise InputError(Problem(place, problem, "extract it again, or leave it out"))
    return array


_NOWHERE = "None/"
"""What the published list puts before the paths of videos without a category."""


def read_list(path: Path) -> tuple[str, ...]:
    """The videos of a path list, as paths below the folder of features.

    Args:
        path: A csv or txt with the header ``path``, rows such as
            ``food_and_entertaining/video_j/jEyaTUyJ-rs``; or HowTo100M's own csv, in which the
            column ``video_id`` names the video where ``path`` names only its folder, or none.

    Raises:
        InputError: If it cannot be read or has neither column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or ()
            rows = list(reader) if {"path", "video_id"} & set(columns) else []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        problem = f"cannot be read: {error}"
        raise InputError(Problem(str(path), problem)) from error
    if not {"path", "video_id"} & set(columns):
        named = first_few([shown(column) for column in columns]) or "(none)"
        problem = f"has the columns {named}"
        raise InputError(Problem(str(path), problem, "one of them must be path or video_id"))
    return tuple(listed for row in rows if (listed := _listed(row)))


def inside(folder: Path, relative: str) -> Path:
    """A file below a folder; no list leads out of it.

    Args:
        folder: Where to look.
        relative: The path below it, with slashes.

    Raises:
        InputError: If the path is absolute, goes up, or comes out elsewhere through a link.
    """
    parts = PurePosixPath(relative)
    unsafe = parts.is_absolute() or ".." in parts.parts or "\\" in relative or "\0" in relative
    if unsafe or not parts.parts or ":" in parts.parts[0]:
        problem = f"'{shown(relative)}' does not name a file below it"
        raise InputError(Problem(str(folder), problem, "paths go down from the folder"))
    found = folder / parts
    if not _resolved(found).is_relative_to(_resolved(folder)):
        problem = f"'{shown(relative)}' leads out of it"
        raise InputError(Problem(str(folder), problem, "copy what the link points to"))
    return found


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # links that lead round in a circle
        problem = "cannot be found: its links lead nowhere"
        raise InputError(Problem(shown(str(path)), problem)) from error


def _listed(row: dict[str, str]) -> str:
    path = (row.get("path") or "").strip().removeprefix(_NOWHERE)
    video = (row.get("video_id") or "").strip()
    if not video or PurePosixPath(path).name in (video, f"{video}.mp4"):
        return str(PurePosixPath(path).with_name(video)) if video else path
    return str(PurePosixPath(path) / video) if path else video


LOUDEST = np.float32(0.0)
"""What the published readers fill up with: in dB below the file's maximum, the maximum itself."""

QUIETEST = np.float32(-80.0)
"""Below which the published spectrograms do not go."""


def frames(spectrogram: NDArray[np.floating[Any]], longest: int, *, mode: Mode) -> Array | None:
    """Cut a clip's spectrogram, and in ``reference`` fill it up.

    Args:
        spectrogram: (mels, frames), as published files have it.
        longest: Frames that are kept.
        mode: ``reference`` fills a shorter one up with 0 dB, louder than anything; ``robust`` gives
            the frames that there are, and None where there is none, or nothing but 0 dB in them,
            which is what published files have for a video without any sound.

    Returns:
        (frames, mels); in ``reference`` always ``longest`` of them.
    """
    cut: Array = spectrogram[:, :longest].T.astype(np.float32)
    if mode == "robust":
        return np.ascontiguousarray(cut) if cut.any() else None
    return np.pad(cut, ((0, longest - len(cut)), (0, 0)), constant_values=LOUDEST)
