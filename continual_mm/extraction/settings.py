"""What a folder of features is for, and whether that is what is asked for now."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.runs.files import read_json, write_json


def settle(path: Path, modalities: Mapping[str, Any]) -> None:
    """Write down what is extracted, or see that the folder is for the same.

    Raises:
        RefusedError: If it is for something else, with every difference.
    """
    wanted = {"version": 2, "modalities": modalities}
    if not path.exists():
        write_json(path, wanted)
        return
    before, now = dict(_flat(read_json(path))), dict(_flat(wanted))
    complaints = [
        Complaint(
            f"{path}, {name}",
            f"is {before.get(name)!r} there, and {now.get(name)!r} now",
            "choose another --to, or the settings of before",
        )
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]
    if complaints:
        raise RefusedError(complaints)


def _flat(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every single value in some JSON, by where it is.

    >>> dict(_flat({"a": {"b": [1, 2]}}))
    {'a.b.1': 1, 'a.b.2': 2}
    """
    if isinstance(value, dict):
        parts = [(str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list):
        parts = [(str(number), inner) for number, inner in enumerate(value, 1)]
    else:
        yield place, value
        return
    for key, inner in parts:
        yield from _flat(inner, f"{place}.{key}" if place else key)
