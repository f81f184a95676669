"""From a record to a row of the table of items, checked."""

from array import array
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.store.checks import (
    FaultError,
    sound_features,
    sound_id,
    sound_name,
    sound_number,
    sound_split,
    sound_text,
    sound_window,
    sound_words,
)
from continual_mm.data.store.form import ModalityForm, OptionalColumn

OPTIONAL: tuple[OptionalColumn, ...] = get_args(OptionalColumn)

_SOUND: Mapping[str, Callable[[str, object], str | int]] = MappingProxyType(
    {"label": sound_number, "group": sound_name, "text_raw": sound_text}
)


class RowMaker:
    """Checks records and makes rows of them.

    Args:
        modalities: What items may have.
        dtype: In which features are stored.
        longest: Modality -> steps behind which windows are cut.

    Attributes:
        columns: Which optional columns the items have; the first record decides.
        groups: Name of a group -> its number.
        times: Modality -> the longest time so far, 0 if no item had it.
        lengths: Part of the recordings -> steps of each recording so far.
    """

    def __init__(
        self, modalities: Sequence[ModalityForm], dtype: str, longest: Mapping[str, int]
    ) -> None:
        self._modalities = modalities
        self._dtype = dtype
        self._longest = longest
        self.columns: tuple[OptionalColumn, ...] | None = None
        self.groups: dict[str, int] = {}
        self.times = dict.fromkeys((one.name for one in modalities), 0)
        self.lengths = {part: array("q") for one in modalities for part in one.parts}

    def row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The row of a record.

        Raises:
            FaultError: If there is anything wrong with it.
        """
        if not isinstance(record, Mapping):
            raise FaultError("", f"is {type(record).__name__}, no mapping", "give a dict by column")
        known = {"ids", "split", *OPTIONAL, *self.times}
        if unknown := sorted(str(key) for key in record if key not in known):
            raise FaultError(unknown[0], "is in no layout", f"known are {', '.join(sorted(known))}")
        row: dict[str, Any] = {
            "ids": sound_id(record.get("ids")),
            "split": sound_split(record.get("split")),
            **self._optional(record),
        }
        for modality in self._modalities:
            row |= self._columns(modality, record.get(modality.name))
        if self.columns is None:
            self.columns = tuple(column for column in OPTIONAL if column in row)
        if "group" in row:
            row["group"] = self.groups.setdefault(row["group"], len(self.groups))
        self._measure(row)
        return row

    def _optional(self, record: Mapping[str, Any]) -> dict[str, Any]:
        given = {column for column in OPTIONAL if record.get(column) is not None}
        expected = given if self.columns is None else set(self.columns)
        for column in sorted(given ^ expected):
            problem = "is missing" if column in expected else "is not in the items before"
            raise FaultError(column, problem, "all items have it or none")
        return {column: _SOUND[column](column, record[column]) for column in given}

    def _columns(self, modality: ModalityForm, value: Any) -> dict[str, Any]:
        name = modality.name
        if modality.source == "windows":
            found: Sequence[Any] = (None, None, None)
            if value is not None:
                lengths = [self.lengths[part] for part in modality.parts]
                found = sound_window(modality, value, lengths)
            columns = (f"{name}_{each}" for each in ("recording", "begin", "end"))
            return dict(zip(columns, found, strict=True))
        if value is None:
            return {name: None}
        if modality.source == "words":
            return {name: sound_words(modality, value)}
        return {name: sound_features(modality, value, self._dtype)}

    def _measure(self, row: Mapping[str, Any]) -> None:
        for modality in self._modalities:
            if (steps := self._steps(modality, row)) > self.times[modality.name]:
                self.times[modality.name] = steps

    def _steps(self, modality: ModalityForm, row: Mapping[str, Any]) -> int:
        name = modality.name
        if modality.source == "windows":
            if row[f"{name}_recording"] is None:
                return 0
            steps = int(row[f"{name}_end"][0] - row[f"{name}_begin"][0])
            return 1 if modality.reduce else min(steps, self._longest[name])
        values: NDArray[np.generic] | None = row[name]
        if values is None:
            return 0
        return len(values) // (1 if modality.source == "words" else modality.modality.features)


def said_of(record: object) -> str:
    """What to call a record in complaints."""
    return f"item {record.get('ids')!r}" if isinstance(record, Mapping) else "a record"
