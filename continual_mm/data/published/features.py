"""One array of a published .npz file, found sound before it is handed on."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.archive import Archive
from continual_mm.data.findings import Findings

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
        RefusedError: If the file is missing, damaged or without the array, or if this is none of
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
        place: Where they are from, for the complaint.

    Raises:
        RefusedError: If it is none, or not finite.
    """
    if array is None or array.dtype.kind != "f":
        raise RefusedError(Complaint(place, "is no float array", "store numbers"))
    if array.size > MOST_VALUES:
        raise RefusedError(Complaint(place, f"has shape {array.shape}", "it is beyond all use"))
    with np.errstate(over="ignore"):
        wrong = int((~np.isfinite(array.astype(np.float32, copy=False))).sum())
    if wrong:
        problem = f"{wrong} of {array.size} values are not finite in float32"
        raise RefusedError(Complaint(place, problem, "extract it again, or leave it out"))
    return array
