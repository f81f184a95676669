"""Point clouds out of unknown files: ``.npy``, ``.npz``, ``.ply``, ``.off``, ``.xyz``.

What a file says of its size is compared with its bytes before anything is made of that size.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.archive import UNREADABLE, Archive
from continual_mm.data.findings import Findings
from continual_mm.data.solids.shapes import points_on
from continual_mm.preparation.extraction.media import MediaError
from continual_mm.system.errors import InputError, first_line

Array = NDArray[np.float64]

MOST_POINTS = 10_000_000
_MOST_BYTES = 1 << 28
_MOST_HEADER = 1 << 16  # bytes of a PLY file before its numbers
_FARTHEST = 1e30  # beyond it squares are no longer finite in float32

_NAMES = ("points", "xyz", "pos", "vertices")  # of the array in an .npz that holds several
_CUT = "copy it again"

_TYPES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("char", "int8"), "i1"),
        **dict.fromkeys(("uchar", "uint8"), "u1"),
        **dict.fromkeys(("short", "int16"), "i2"),
        **dict.fromkeys(("ushort", "uint16"), "u2"),
        **dict.fromkeys(("int", "int32"), "i4"),
        **dict.fromkeys(("uint", "uint32"), "u4"),
        **dict.fromkeys(("float", "float32"), "f4"),
        **dict.fromkeys(("double", "float64"), "f8"),
    }
)
"""PLY's types and numpy's."""


def read_cloud(path: Path, *, points: int = 0) -> Array:
    """(N, 3) points of a file; a MediaError, which does not name it, if it cannot be used.

    Further numbers of a point, such as colours, are left out. Of an ``.off`` file with faces as
    many points are drawn on these, evenly by area, as ``points`` says, 1024 if it is 0; of any
    other file with more points so many are drawn, all are taken if it is 0. Draws are the same at
    every call.
    """
    found, triangles = _read(path)
    rng = np.random.default_rng(0)
    if triangles is not None and len(triangles):
        if triangles.min() < 0 or triangles.max() >= len(found):
            raise MediaError(f"has a face of a point that is not there; it has {len(found)} points")
        corners = found[triangles]
        if np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).any():
            return points_on(corners, points or 1024, rng)[0]
    if 0 < points < len(found):
        found = found[np.sort(rng.choice(len(found), points, replace=False))]
    return found


def is_cloud(path: Path) -> bool:
    """Whether a file is one by its ending."""
    return path.suffix.lower() in _READERS


def _checked(values: NDArray[Any]) -> Array:
    if values.ndim != 2 or values.shape[1] < 3 or values.dtype.kind not in "fiu":
        shown = "x".join(map(str, values.shape))
        raise MediaError(f"holds {values.dtype} of shape {shown}; give (points, 3) numbers")
    if not len(values):
        raise MediaError("has no point; leave it out")
    found = np.asarray(values[:, :3], dtype=np.float64)
    # NaN compares false.
    wrong = np.flatnonzero(~(np.abs(found) <= _FARTHEST).all(1))
    if len(wrong):
        problem = f"point {wrong[0] + 1} of {len(found):,} is not finite, or beyond {_FARTHEST:g}"
        raise MediaError(f"{problem}; leave such points out ({len(wrong):,} of them)")
    return found


Read = tuple[NDArray[Any], NDArray[np.int64] | None]  # points, and the corners of faces


def _read(path: Path) -> tuple[Array, NDArray[np.int64] | None]:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise MediaError(f"is no point cloud; endings are {', '.join(_READERS)}")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise MediaError(f"has more than {_MOST_BYTES >> 20} MB; give fewer points")
        found, triangles = reader(path)
    except OSError as error:
        raise MediaError(f"cannot be opened: {error.strerror or error}") from error
    except UNREADABLE as error:
        raise MediaError(f"cannot be read: {first_line(error)}; write it again") from error
    return _checked(found), triangles


def _claimed(points: int) -> int:
    if not 0 <= points <= MOST_POINTS:
        raise MediaError(f"says that it has {points:,} points; at most {MOST_POINTS:,} are read")
    return points


def _npy(path: Path) -> Read:
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(values, np.ndarray):
        raise MediaError("is no .npy file, whatever its ending")
    _claimed(len(values) if values.ndim else 1)
    return values, None


def _npz(path: Path) -> Read:
    findings = Findings(path.name)
    try:
        with Archive(path, findings) as archive:
            fitting = [
                name
                for name, header in archive.headers.items()
                if len(header.shape) == 2 and header.shape[1] >= 3 and header.dtype.kind in "fiu"
            ]
            named = [name for name in _NAMES if name in fitting] or fitting
            findings.refuse()
            if not named or (len(fitting) > 1 and named == fitting):
                there = ", ".join(archive.headers) or "nothing"
                raise MediaError(f"holds {there}; call the (points, 3) array 'points'")
            _claimed(archive.headers[named[0]].shape[0])
            values = archive.read(named[0])
            findings.refuse()
    except InputError as error:
        (first, *_) = error.problems
        raise MediaError(f"{first.message}; {first.remedy or _CUT}") from error
    if values is None:
        raise MediaError(f"cannot be read; {_CUT}")
    return values, None


def _numbers(lines: list[str], expected: int | None = None) -> Array:
    """(lines, 3) the first three numbers of each."""
    if expected is not None and len(lines) < expected:
        raise MediaError(f"is cut short: {len(lines):,} of {expected:,} points are there; {_CUT}")
    if not lines:
        return np.empty((0, 3))
    try:
        found: Array = np.loadtxt(lines, usecols=(0, 1, 2), ndmin=2, comments=None)
    except ValueError as error:
        problem = f"has a line that is no x, y and z: {first_line(error)}"
        raise MediaError(f"{problem}; write three numbers for each point") from error
    return found


def _lines(text: str) -> list[str]:
    """Lines with something on them, without comments; commas count as spaces."""
    plain = (line.partition("#")[0].replace(",", " ") for line in text.splitlines())
    return [line for line in plain if line.strip()]


def _xyz(path: Path) -> Read:
    lines = _lines(path.read_text(encoding="utf-8"))
    # Chemists' files begin with a count; a line of words names the columns.
    if lines and len(lines[0].split()) < 3:
        raise MediaError("has a first line without x, y and z; write three numbers for each point")
    _claimed(len(lines))
    return _numbers(lines), None


def _off(path: Path) -> Read:
    lines = _lines(path.read_text(encoding="utf-8"))
    head = lines[0].strip() if lines else ""
    if not head.upper().startswith(("OFF", "COFF", "NOFF")):
        raise MediaError("does not begin with OFF; write it again")
    rest = head[head.upper().index("OFF") + 3 :].strip()  # some write the counts behind it
    body = lines[1:] if not rest else [rest, *lines[1:]]
    counts = body[0].split() if body else []
    if len(counts) < 2 or not all(each.isdecimal() for each in counts[:2]):
        raise MediaError("does not say how many points and faces it has behind OFF")
    points, faces = _claimed(int(counts[0])), _claimed(int(counts[1]))
    found = _numbers(body[1 : 1 + points], points)
    listed = body[1 + points : 1 + points + faces]
    if len(listed) < faces:
        raise MediaError(f"is cut short: {len(listed):,} of {faces:,} faces are there; {_CUT}")
    triangles = []
    for line in listed:  # of any number of corners, which come behind it
        corners = [int(word) for word in line.split()[: 1 + int(line.split()[0])]][1:]
        triangles += [(corners[0], *both) for both in pairwise(corners[1:])]
    return found, np.array(triangles, dtype=np.int64).reshape(-1, 3)


@dataclass(frozen=True, slots=True)
class _Element:
    """A part of a PLY file; ``properties`` are names and numpy's types, None of a list."""

    name: str
    count: int
    properties: list[tuple[str, str | None]]


def _ply(path: Path) -> Read:
    content = path.read_bytes()
    end = content[:_MOST_HEADER].find(b"end_header")
    start = content.find(b"\n", end) + 1
    if not content.startswith(b"ply") or end < 0 or not start:
        raise MediaError("has no PLY header with an end; write it again")
    form, elements = _ply_header(content[:end].decode("ascii", "replace").splitlines()[1:])
    place = next((n for n, each in enumerate(elements) if each.name == "vertex"), None)
    if place is None:
        raise MediaError("has no element vertex; write the points as vertices")
    before, vertices = elements[:place], elements[place]
    kinds = dict(vertices.properties)
    if not {"x", "y", "z"} <= kinds.keys() or None in kinds.values():
        raise MediaError("has vertices without plain x, y and z; write these as numbers")
    _claimed(vertices.count)
    if form == "ascii":
        skipped = sum(each.count for each in before)
        lines = _lines(content[start:].decode("ascii", "replace"))[skipped:]
        return _ascii_vertices(lines, vertices), None
    return _binary_vertices(content, start, before, vertices, form), None


def _ascii_vertices(lines: list[str], vertices: _Element) -> Array:
    names = [name for name, _ in vertices.properties]
    rows = [line.split() for line in lines[: vertices.count]]
    if any(len(words) < len(names) for words in rows):
        raise MediaError(f"has a vertex of fewer than {len(names)} numbers; {_CUT}")
    columns = [names.index(axis) for axis in "xyz"]
    return _numbers([" ".join(words[n] for n in columns) for words in rows], vertices.count)


def _binary_vertices(
    content: bytes, start: int, before: list[_Element], vertices: _Element, form: str
) -> Array:
    order = ">" if form == "binary_big_endian" else "<"
    start += sum(each.count * _record(each, order).itemsize for each in before)
    layout, there = _record(vertices, order), len(content) - start
    if vertices.count * layout.itemsize > there:
        claim = f"{vertices.count:,} points of {layout.itemsize} bytes"
        problem = f"is cut short: it says it has {claim}, but {max(0, there):,} bytes follow"
        raise MediaError(f"{problem}; {_CUT}")
    rows = np.frombuffer(content, layout, count=vertices.count, offset=start)
    return np.stack([rows[axis].astype(np.float64) for axis in "xyz"], axis=1)


def _ply_header(lines: list[str]) -> tuple[str, list[_Element]]:
    form, elements = "", list[_Element]()
    for line in lines:
        match line.split():
            case [
                "format",
                ("ascii" | "binary_little_endian" | "binary_big_endian") as form,
                "1.0",
            ]:
                pass
            case ["element", name, count] if count.isdecimal():
                elements.append(_Element(name, int(count), []))
            case ["property", "list", _, _, name] if elements:
                elements[-1].properties.append((name, None))
            case ["property", kind, name] if elements and kind in _TYPES:
                elements[-1].properties.append((name, _TYPES[kind]))
            case [] | ["comment" | "obj_info", *_]:
                pass
            case _:
                raise MediaError(f"has a line in its header that is not PLY's: {line[:40]!r}")
    if not form:
        raise MediaError("does not say its format in the header; write it again")
    return form, elements


def _record(element: _Element, order: str) -> np.dtype[Any]:
    if any(kind is None for _, kind in element.properties):
        problem = f"has lists in {element.name!r} before its vertices"
        raise MediaError(f"{problem}; write the vertices first")
    return np.dtype([(name, f"{order}{kind}") for name, kind in element.properties])


_READERS: Mapping[str, Callable[[Path], Read]] = MappingProxyType(
    {".npy": _npy, ".npz": _npz, ".ply": _ply, ".off": _off, ".xyz": _xyz}
)
