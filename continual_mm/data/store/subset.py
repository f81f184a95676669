"""Writes some items of a store as another store, their values and columns as they are."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.store.form import ModalityForm, StoreForm, Window, Windows, Words, read_form
from continual_mm.data.store.sources import Tables, WindowSteps, WordRows, blocks_of
from continual_mm.data.store.tables import StoredTexts
from continual_mm.data.store.writer import StoreWriter, store_writer
from continual_mm.definitions.modality import DatasetCard, Modality

_BLOCK = 1024  # items that are read at once, fewer where they are large
_BLOCK_VALUES = 1 << 21


def write_subset(
    folder: Path, target: Path, rows: NDArray[np.int64], *, note: str = ""
) -> DatasetCard:
    """Write some items, a few at a time, as a new store with the same modalities and dtype.

    Tables of words are copied, and of recordings those that the items lie in. Means and deviations
    are measured anew, of the training items among them.

    Args:
        folder: A store.
        target: Where to; it must not be there.
        rows: Which items, ascending.
        note: A sentence that is added to the store's notes.

    Returns:
        The card of the new store.

    Raises:
        InputError: If it cannot be written, or no training item has one of the modalities.
    """
    form = read_form(folder)
    tables = Tables(folder, form)
    with store_writer(
        target,
        layout=tuple(_part(one, tables) for one in form.modalities),
        dtype=form.dtype,
        notes=(*form.notes, note) if note else form.notes,
        provenance=form.provenance.provenance if form.provenance else None,
    ) as writer:
        items = _Items(tables, form, _recordings(tables, rows, writer))
        for start in range(0, len(rows), _BLOCK):
            for record in items.records(rows[start : start + _BLOCK]):
                writer.item(record)
        return writer.finish()


def _part(form: ModalityForm, tables: Tables) -> Modality | Words | Windows:
    source = tables.sources[form.name]
    if isinstance(source, WordRows):
        return Words(form.modality, source.vectors)
    if isinstance(source, WindowSteps):
        return Windows(form.modality, form.parts, form.reduce)
    return form.modality


def _recordings(tables: Tables, rows: NDArray[np.int64], writer: StoreWriter) -> dict[int, int]:
    """Write the recordings of some items; the number of each in the old store -> in the new one."""
    windows = [each for each in tables.sources.values() if isinstance(each, WindowSteps)]
    parts = {part: size for each in windows for part, size in each.form.parts.items()}
    used: set[int] = set()
    for each in windows:
        having = rows[tables.items.present(each.form.columns[0])[rows]]
        for start in range(0, len(having), _BLOCK):
            used.update(each.bounds(having[start : start + _BLOCK])[0].tolist())
    names, numbers = StoredTexts(tables.recordings, "ids"), {}
    for old in sorted(used):
        row = np.array([old])
        values = {part: tables.recordings.read(part, row, size) for part, size in parts.items()}
        numbers[old] = writer.recording(str(names[row][0]), values)
    return numbers


class _Items:
    """Records of a store's items, as its writer takes them."""

    def __init__(self, tables: Tables, form: StoreForm, recordings: dict[int, int]) -> None:
        self._tables, self._form, self._recordings = tables, form, recordings
        first = {one.name: one.columns[0] for one in form.modalities}
        first |= {name: name for name in form.columns}
        self._present = {name: tables.items.present(column) for name, column in first.items()}
        numbers = {"split", *form.columns} - {"text_raw"}
        self._numbers = {name: tables.items.column(name) for name in numbers}

    def records(self, rows: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
        """A record of each row, in order; None for what an item lacks."""
        columns: dict[str, Iterable[Any]] = {
            "ids": StoredTexts(self._tables.items, "ids")[rows].tolist(),
            "split": self._numbers["split"][rows].tolist(),
        }
        for name, having in self._present.items():
            present = having[rows]
            columns[name] = _spread(present, self._values(name, rows[present]))
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))

    def _values(self, name: str, rows: NDArray[np.int64]) -> Iterator[Any]:
        """What each of some rows, all of which have the column, has in it."""
        if name == "text_raw":
            return iter(StoredTexts(self._tables.items, name)[rows].tolist())
        if name == "group":
            names = StoredTexts(self._tables.groups, "ids")
            return iter(names[self._numbers[name][rows]].tolist())
        if name in self._numbers:
            return iter(self._numbers[name][rows].tolist())
        (one,) = (each for each in self._form.modalities if each.name == name)
        return self._features(one, rows)

    def _features(self, one: ModalityForm, rows: NDArray[np.int64]) -> Iterator[Any]:
        """Features of each row, its words, or its window."""
        items, source = self._tables.items, self._tables.sources[one.name]
        if isinstance(source, WindowSteps):
            recordings, begin, count = source.bounds(rows)
            for old, first, steps in zip(recordings, begin, count, strict=True):
                spans = zip(first.tolist(), (first + steps).tolist(), strict=True)
                yield Window(self._recordings[int(old)], tuple(spans))
            return
        words = isinstance(source, WordRows)
        size = 1 if words else one.modality.features
        inner = () if words else one.shape[int(one.kind.has_length) :]
        counts = source.counts(rows)
        for block in blocks_of(counts * size, _BLOCK_VALUES):
            values = items.read(one.name, rows[block], size)
            for steps in np.split(values, np.cumsum(counts[block])[:-1]):
                outer = steps.shape[:1] if one.kind.has_length else ()
                yield steps.reshape(*outer, *inner)


def _spread(present: NDArray[np.bool_], values: Iterator[Any]) -> Iterator[Any]:
    """The values, each in the next place that is present; None in the others."""
    return (next(values) if has else None for has in present)
