"""Rows of a Hugging Face dataset, brought into the columns of a store."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.schema import ITEM_COLUMNS, KIND, LENGTH, PRESENT, natural_kind, split_ending
from continual_mm.data.store.rows import OPTIONAL
from continual_mm.modality import Kind, Modality

SPLIT_NAMES = {
    "train": 0,
    "training": 0,
    "validation": 1,
    "valid": 1,
    "val": 1,
    "dev": 1,
    "test": 2,
}
"""What splits are called -> the number of the split."""

LOOKED_AT = 1000
"""Rows of which at least one must have a modality, so that its size is known."""


@dataclass(frozen=True, slots=True)
class Understood:
    """What the columns of a dataset mean.

    Attributes:
        layout: The modalities: columns of floats, or of uint8, with at least one axis.
        plain: The other columns that items have in a store.
        ignored: Columns that mean nothing in one.
    """

    layout: tuple[Modality, ...]
    plain: frozenset[str]
    ignored: tuple[str, ...]

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]], source: str) -> "Understood":
        """Conclude it from the first rows; columns that mean nothing in a store are left out.

        Args:
            rows: The first ones.
            source: What to call the dataset in complaints.

        Raises:
            RefusedError: If there is no modality, or a kind that does not exist.
        """
        seen: dict[str, Any] = {}
        for row in rows:
            seen |= {key: value for key, value in row.items() if seen.get(key) is None}
        layout = tuple(
            Modality(name, _kind(name, array, seen, source), array.shape)
            for name, array in ((name, features_of(value)) for name, value in seen.items())
            if array is not None and name not in ITEM_COLUMNS and split_ending(name) is None
        )
        if not layout:
            problem = f"has no modality; its columns are {', '.join(map(str, seen)) or 'none'}"
            remedy = f"a modality is a column of floats that one of the first {LOOKED_AT} rows has"
            raise RefusedError(Complaint(source, problem, remedy))
        plain = frozenset(
            name for name in ("ids", "split", *OPTIONAL) if seen.get(name) is not None
        )
        names = [one.name for one in layout]
        known = {*plain, *names, *(name + end for name in names for end in (KIND, LENGTH, PRESENT))}
        return cls(layout, plain, tuple(name for name in seen if name not in known))

    def records(
        self, rows: Iterable[Mapping[str, Any]], *, split: int, name: str
    ) -> Iterator[dict[str, Any]]:
        """Rows as records.

        Args:
            rows: Of one split.
            split: Where items go that do not say it themselves.
            name: Of the split, with which items are named that have no ids.

        Raises:
            RefusedError: If an item has more valid steps than there are, or none; named.
        """
        for number, row in enumerate(rows):
            record: dict[str, Any] = {"ids": f"{name}-{number}", "split": split}
            record |= {column: row[column] for column in self.plain}
            for column in {"ids", "group"} & self.plain:
                record[column] = str(row[column])
            record["split"] = SPLIT_NAMES.get(record["split"], record["split"])
            for one in self.layout:
                record[one.name] = _valid(one.name, row, record["ids"])
            yield record


def features_of(value: Any) -> NDArray[Any] | None:
    """A value as features; None if it is anything else."""
    try:
        array = np.asarray(value)
        if array.dtype == object and array.size:
            array = np.stack([np.asarray(each, dtype=np.float32) for each in array])
    except (TypeError, ValueError):
        return None
    is_signal = array.dtype.kind == "f" or array.dtype == np.uint8
    return array if is_signal and array.ndim > 0 and array.size else None


def _kind(name: str, array: NDArray[Any], seen: Mapping[str, Any], source: str) -> Kind:
    text = str(seen.get(name + KIND, natural_kind(array.ndim)))
    if text not in list(Kind):
        remedy = f"the kinds of signal are {', '.join(Kind)}"
        raise RefusedError(Complaint(f"{source}, column {name + KIND!r}", f"{text!r}", remedy))
    return Kind(text)


def _valid(name: str, row: Mapping[str, Any], item: str) -> NDArray[Any] | None:
    """The valid steps of a modality in a row; None if it lacks it."""
    value = row.get(name)
    if value is None or row.get(name + PRESENT) is False or row.get(name + PRESENT) == 0:
        return None
    found = features_of(value)
    if found is None:
        # What is no signal is refused with the item's name when it is written.
        other = np.asarray(value, dtype=object)
        return other if other.size else None
    steps = row.get(name + LENGTH)
    if steps is None:
        return found
    if 1 <= steps <= len(found):
        return found[: int(steps)]
    place = f"item {item!r}, column {name + LENGTH!r}"
    raise RefusedError(Complaint(place, f"{steps} is not within 1..{len(found)}"))
