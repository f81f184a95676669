"""What a filter found of every pair, as columns of a file beside the data."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.archive import Archive
from continual_mm.data.findings import Findings
from continual_mm.data.pack import write_pack
from continual_mm.system.errors import InputError
from continual_mm.system.files import write_errors

_SETTINGS = "settings"
_LONGEST = 1 << 16  # bytes of the settings
_REMEDY = "leave --terms out, and scorers are trained"

Columns = dict[str, NDArray[np.float64]]
Settings = dict[str, Any]


def terms_path(target: Path) -> Path:
    """Where the terms lie of data that were filtered into ``target``.

    >>> terms_path(Path("kept.npz")).name, terms_path(Path("kept")).name
    ('kept.filter.npz', 'kept.filter.npz')
    """
    return target.with_name(f"{target.name.removesuffix('.npz')}.filter.npz")


def write_terms(path: Path, columns: Mapping[str, NDArray[Any]], settings: Settings) -> None:
    """Write columns with a value for each pair, and all that they follow from, as JSON."""
    with write_errors(str(path)):
        write_pack(path, {**columns, _SETTINGS: np.array(json.dumps(settings))})


def read_terms(
    path: Path, names: Iterable[str], pairs: int, same: Settings
) -> tuple[Columns, Settings]:
    """Read columns that an earlier filter wrote, and its settings.

    Args:
        path: What :func:`write_terms` wrote.
        names: Columns of finite numbers, one for each pair.
        pairs: How many there are.
        same: Settings that must be those of the file.

    Raises:
        InputError: If it is no such file, or of other data or another pair.
    """
    findings = Findings(str(path))
    with Archive(path, findings) as archive:
        findings.refuse()
        settings = _settings(archive, path)
        for name, value in same.items():
            if settings.get(name) != value:
                problem = f"has the {name} {settings.get(name)!r}, not {value!r}"
                raise InputError.at(path, problem, _REMEDY)
        columns = {name: _column(archive, path, name, pairs) for name in names}
    return columns, settings


def _column(archive: Archive, path: Path, name: str, pairs: int) -> NDArray[np.float64]:
    header = archive.headers.get(name)
    if header is None:
        raise InputError.at(path, f"has no column {name!r}", _REMEDY)
    sound = header.shape == (pairs,) and header.dtype == np.float64
    values = archive.read(name) if sound else None
    if values is None or not np.isfinite(values).all():
        raise InputError.at(path, f"column {name!r} is not {pairs} finite numbers", _REMEDY)
    return values


def _settings(archive: Archive, path: Path) -> Settings:
    header = archive.headers.get(_SETTINGS)
    if header is not None and header.shape == () and 0 < header.dtype.itemsize <= _LONGEST:
        try:
            found = json.loads(str(archive.read(_SETTINGS)))
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            return found
    raise InputError.at(path, "holds no terms of a filter", "give a file that data filter wrote")
