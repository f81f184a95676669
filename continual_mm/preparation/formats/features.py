"""Features and spectrograms of published files: read, checked, and as the models see them."""

import math
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.archive import Archive
from continual_mm.data.findings import Findings
from continual_mm.preparation.formats.recipe import Mode
from continual_mm.system.errors import InputError, printable

Array = NDArray[np.float32]
Floats = NDArray[np.floating[Any]]

_LEAST_NORM = np.float32(1e-12)

MOST_FEATURES = 1 << 16
"""In one step of time; an array without any step could claim any number in a few bytes."""

_MOST_VALUES = 1 << 30
"""More would be days of video: it is a small file that was made to fill the memory."""

LOUDEST = np.float32(0.0)
"""What the published readers pad with: in dB below the file's maximum, the maximum itself."""

QUIETEST = np.float32(-80.0)  # below which the published spectrograms do not go


def unit(vectors: Floats) -> Array:
    """Divide by the Euclidean norm over the last axis; zeros stay zeros."""
    values = vectors.astype(np.float32)
    norms = np.linalg.norm(values, axis=-1, keepdims=True)
    scaled: Array = values / np.maximum(norms, _LEAST_NORM)
    return scaled


def unit_halves(first: Floats, second: Floats) -> Array:
    """Join a clip's 2D features, (n,), and 3D features, (m,), each of norm 1, to (n + m,)."""
    return np.concatenate([unit(first), unit(second)])


def frames(spectrogram: Floats, longest: int, *, mode: Mode) -> Array | None:
    """Cut a clip's spectrogram, (mels, frames), to (at most ``longest`` frames, mels).

    ``reference`` pads a shorter one with 0 dB, louder than anything; ``robust`` gives None if there
    is nothing but 0 dB, as published files have it for a video without any audio.
    """
    cut: Array = spectrogram[:, :longest].T.astype(np.float32)
    if mode == "robust":
        return np.ascontiguousarray(cut) if cut.any() else None
    return np.pad(cut, ((0, longest - len(cut)), (0, 0)), constant_values=LOUDEST)


def read_array(path: Path, key: str, *, axis: int = 1) -> Floats:
    """Read a two-dimensional array of finite floats from an .npz file, its features on ``axis``."""
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
        elif math.prod(header.shape) > _MOST_VALUES or header.shape[axis] > MOST_FEATURES:
            findings.about(key, f"has shape {header.shape}", "it is beyond all use")
        findings.refuse()
        array = archive.read(key)
    findings.refuse()
    return finite(array, f"{path}, column {key!r}")


def finite(array: NDArray[Any] | None, place: str) -> Floats:
    """The array, checked to be of floats that are finite in float32; ``place`` is for messages."""
    if array is None or array.dtype.kind != "f":
        raise InputError.at(place, "is no float array", "store numbers")
    if array.size > _MOST_VALUES:
        raise InputError.at(place, f"has shape {array.shape}", "it is beyond all use")
    with np.errstate(over="ignore"):
        wrong = int((~np.isfinite(array.astype(np.float32, copy=False))).sum())
    if wrong:
        problem = f"{wrong} of {array.size} values are not finite in float32"
        raise InputError.at(place, problem, "extract it again, or leave it out")
    return array


def inside(folder: Path, relative: str) -> Path:
    """A file below a folder; an InputError if its path goes up, is absolute or leaves by a link."""
    parts = PurePosixPath(relative)
    unsafe = parts.is_absolute() or ".." in parts.parts or "\\" in relative or "\0" in relative
    if unsafe or not parts.parts or ":" in parts.parts[0]:
        problem = f"'{printable(relative)}' does not name a file below it"
        raise InputError.at(folder, problem, "paths go down from the folder")
    found = folder / parts
    if not _resolved(found).is_relative_to(_resolved(folder)):
        problem = f"'{printable(relative)}' leads out of it"
        raise InputError.at(folder, problem, "copy what the link points to")
    return found


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # circular links
        problem = "cannot be found: its links lead nowhere"
        raise InputError.at(printable(str(path)), problem) from error
