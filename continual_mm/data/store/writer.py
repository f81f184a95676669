"""Writes a store: records one at a time, a folder that is whole or not there."""

import os
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from continual_mm.data.findings import FaultError
from continual_mm.data.provenance import ProvenanceForm
from continual_mm.data.statistics import Moments
from continual_mm.data.store.form import (
    GROUP_FIELDS,
    ArrowField,
    DType,
    Layout,
    ModalityForm,
    ShardForm,
    StoreForm,
    TableName,
    Windows,
    Words,
    described,
    digest_of_statistics,
    item_fields,
    recording_fields,
    write_form,
)
from continual_mm.data.store.opening import Tables, tables_of
from continual_mm.data.store.records import (
    Faults,
    RowMaker,
    check_occurrence,
    said_of,
    sound_id,
    sound_part,
    with_times,
)
from continual_mm.data.store.shards import Digest, TableWriter, fingerprint_of
from continual_mm.data.store.statistics import Measured, measured_afterwards
from continual_mm.data.store.table import StoredTable, StoredTexts
from continual_mm.data.store.words import write_words
from continual_mm.definitions.modality import SPLITS, DatasetCard, Provenance
from continual_mm.system.errors import InputError, Problem, first_few
from continual_mm.system.files import new_folder, write_errors

_SMALLEST = float(np.finfo(np.float16).smallest_normal)
"""Below it float16 loses digit after digit, down to nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """What is known of a store before its first item.

    Attributes:
        folder: Where it is written.
        name: The dataset's.
        dtype: In which features are stored.
        modalities: Without their times and statistics.
        notes: What whoever looks at the store should know.
        provenance: How its items were converted.
    """

    folder: Path
    name: str
    dtype: DType
    modalities: tuple[ModalityForm, ...]
    notes: tuple[str, ...] = ()
    provenance: ProvenanceForm | None = None


def check_unique(items: StoredTable, hashes: "array[int]", faults: Faults) -> None:
    """Complain about ids that occur twice.

    Args:
        items: What was written.
        hashes: Of their ids, in order.
        faults: Takes the problem.
    """
    values = np.frombuffer(hashes, dtype=np.uint64)
    ordered = np.sort(values)
    again = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(again):
        return
    suspects = np.flatnonzero(np.isin(values, again))
    ids, counts = np.unique(StoredTexts(items, "ids")[suspects], return_counts=True)
    if twice := [repr(str(one)) for one in ids[counts > 1]]:
        faults.about_store(f"ids occur more than once: {first_few(twice)}", "ids must be unique")


def with_statistics(tables: Tables, measured: Measured, faults: Faults) -> StoreForm:
    """The form of a store with the statistics of its training items.

    Args:
        tables: What was written.
        measured: What was gathered meanwhile.
        faults: Takes problems about modalities that no training item has, if there are any, and
            about those of which float16 left nothing.
    """
    modalities = []
    for one in tables.form.modalities:
        found = _measure(one, tables, measured)
        if found is None and tables.form.items[0]:
            problem = f"no training item has the modality {one.name!r}"
            faults.about_store(problem, "nothing could be learnt of it")
        if found and tables.form.dtype == "float16":
            _check_digits(one.name, found, faults)
        mean, deviation = (tuple(each.tolist()) for each in found) if found else (None, None)
        modalities.append(one.model_copy(update={"mean": mean, "deviation": deviation}))
    said = {"modalities": tuple(modalities), "statistics": digest_of_statistics(modalities)}
    return tables.form.model_copy(update=said)


def _check_digits(name: str, found: Moments, faults: Faults) -> None:
    if (size := float(np.hypot(*found).max())) >= _SMALLEST:
        return
    problem = f"values of {name!r} are about {size:.1g}, of which float16 keeps no three digits"
    if not size:
        problem = f"values of {name!r} are 0 in all training items, or too small for float16"
    faults.about_store(problem, 'write dtype="float32"')


def _measure(modality: ModalityForm, tables: Tables, measured: Measured) -> Moments | None:
    if words := tables.words(modality):
        return measured.words(modality.name, words.vectors)
    if modality.source == "values":
        return measured.values(modality.name)
    return measured_afterwards(tables, modality)


SHARD_BYTES = 500 << 20
"""A file of a store is about as large."""


def write_store(  # noqa: PLR0913 - what is written, and by name how
    records: Iterable[Mapping[str, Any]],
    folder: str | os.PathLike[str],
    *,
    layout: Layout,
    name: str | None = None,
    dtype: DType = "float16",
    left_out: list[Problem] | None = None,
    shard_bytes: int = SHARD_BYTES,
    notes: tuple[str, ...] = (),
    provenance: Provenance | None = None,
) -> DatasetCard:
    """Write records as a store; they are never all in memory.

    Args:
        records: Items by column: ``ids`` (text), ``split`` (0, 1 or 2), for all or none ``label``
            (a whole number), ``group`` (a text or a whole number) and ``text_raw`` (a text), and
            for each modality its features, (time, ...) or for vectors (features,); None, or no such
            key, in an item that lacks it.
        folder: Where to; it must not be there, and is not there unless all went well.
        layout: What the items have.
        name: The dataset's name; without one, the folder's.
        dtype: In which features are stored. Float16 keeps three digits, up to 65504.
        left_out: Takes the problems about faulty records, which then are left out; without it
            they end the writing.
        shard_bytes: About how large a file is.
        notes: What whoever looks at the store should know of it, in sentences.
        provenance: How published files were converted into the records.

    Returns:
        The card of the store.

    Raises:
        InputError: With everything that is wrong, items named; ids that occur twice included.
    """
    with store_writer(
        folder,
        layout=layout,
        name=name,
        dtype=dtype,
        left_out=left_out,
        shard_bytes=shard_bytes,
        notes=notes,
        provenance=provenance,
    ) as writer:
        for record in records:
            writer.item(record)
        return writer.finish()


@contextmanager
def store_writer(
    folder: str | os.PathLike[str],
    *,
    layout: Layout,
    name: str | None = None,
    dtype: DType = "float16",
    left_out: list[Problem] | None = None,
    shard_bytes: int = SHARD_BYTES,
    notes: tuple[str, ...] = (),
    provenance: Provenance | None = None,
) -> "Iterator[StoreWriter]":
    """A writer of a store that may have recordings; arguments as :func:`write_store` has them.

    The store is put in place at the end of the block. Nothing is left of it after an error.

    Raises:
        InputError: With everything that is wrong, items named.
    """
    target = Path(folder)
    with new_folder(target) as place:
        faults = Faults(str(target), left_out)
        modalities = described(layout, str(target), dtype)
        kept = ProvenanceForm.of(provenance)
        draft = Draft(place, name or target.name, dtype, modalities, notes, kept)
        writer = StoreWriter(draft, layout, faults, shard_bytes=shard_bytes)
        try:
            yield writer
            writer.finish()
        except BaseException:
            # What ended the writing is told, not what it leads to here.
            with suppress(Exception):
                writer.close()
            raise


class StoreWriter:
    """Takes recordings and items; made by :func:`store_writer`.

    Args:
        draft: What is known of the store.
        layout: What the items have.
        faults: Takes what is wrong with them.
        shard_bytes: About how large a file is.
    """

    def __init__(self, draft: Draft, layout: Layout, faults: Faults, *, shard_bytes: int) -> None:
        self._draft, self._faults, self._shard_bytes = draft, faults, shard_bytes
        self._digest = Digest()
        self._tables: dict[TableName, TableWriter] = {}
        self._card: DatasetCard | None = None
        self._hashes = array("Q")
        self._items = [0] * len(SPLITS)
        self._training_groups: set[int] = set()
        self._parts = {part: n for one in draft.modalities for part, n in one.parts.items()}
        longest = {
            one.modality.name: one.modality.shape[0]
            for one in layout
            if isinstance(one, Windows) and one.reduce is None
        }
        self._rows = RowMaker(draft.modalities, draft.dtype, longest)
        self._measured = Measured(draft.modalities)
        for one in layout:
            if isinstance(one, Words):
                with write_errors(faults.source):
                    write_words(draft.folder, one, draft.dtype, self._digest, faults)
        faults.refuse()

    def recording(self, name: str, parts: Mapping[str, ArrayLike]) -> int:
        """Write a recording.

        Args:
            name: What to call it.
            parts: (time, features) of every part that it has.

        Returns:
            Its number, for :class:`Window`.

        Raises:
            InputError: If there is anything wrong with it, or the disk is full.
            ValueError: If the store is finished.
        """
        self._check_open()
        number = len(next(iter(self._rows.lengths.values()), ()))
        row: dict[str, Any] = {}
        try:
            row["ids"] = sound_id(name)
            if unknown := parts.keys() - self._parts.keys():
                known = f"known are {', '.join(self._parts)}"
                raise FaultError(min(unknown), "is no part of a recording", known)
            for part, features in self._parts.items():
                given = parts.get(part, np.empty((0, features), dtype=np.float32))
                row[part] = sound_part(part, given, features, self._draft.dtype)
        except FaultError as fault:
            raise InputError(self._faults.problem(f"recording {name!r}", fault)) from fault
        for part, features in self._parts.items():
            self._rows.lengths[part].append(len(row[part]) // features)
        fields = recording_fields(self._draft.modalities, self._draft.dtype)
        with write_errors(self._faults.source):
            self._table("recordings", fields).add(row)
        return number

    def item(self, record: Mapping[str, Any]) -> None:
        """Write an item.

        Raises:
            InputError: If too many were faulty, or the disk is full.
            ValueError: If the store is finished.
        """
        self._check_open()
        try:
            row = self._rows.row(record)
        except FaultError as fault:
            self._faults.about_record(said_of(record), fault)
            return
        self._hashes.append(_hash(row["ids"]))
        self._items[row["split"]] += 1
        if self._faults:
            return
        if row["split"] == 0:
            self._measured.add(row)
            if "group" in row:
                self._training_groups.add(row["group"])
        columns = self._rows.columns or ()
        fields = item_fields(columns, self._draft.modalities, self._draft.dtype)
        with write_errors(self._faults.source):
            self._table("items", fields).add(row)

    def finish(self) -> DatasetCard:
        """End the writing; nothing can be written any more.

        Raises:
            InputError: With everything that was wrong.
        """
        if self._card is None:
            with write_errors(self._faults.source):
                for name in self._rows.groups:
                    self._table("groups", GROUP_FIELDS).add({"ids": name})
                shards = {name: table.finish() for name, table in self._tables.items()}
                self._card = self._finished(shards)
        return self._card

    def close(self) -> None:
        """Let go of the files, whether all is written or not."""
        for table in self._tables.values():
            table.close()

    def _check_open(self) -> None:
        if self._card is not None:
            raise ValueError("the store is finished: nothing more can be written")

    def _table(self, name: TableName, fields: tuple[ArrowField, ...]) -> TableWriter:
        if name not in self._tables:
            folder = self._draft.folder / name
            self._tables[name] = TableWriter(
                folder, fields, self._digest, shard_bytes=self._shard_bytes
            )
        return self._tables[name]

    def _finished(self, shards: Mapping[TableName, tuple[ShardForm, ...]]) -> DatasetCard:
        draft, faults = self._draft, self._faults
        check_occurrence(self._rows.times, self._items, faults)
        faults.refuse()
        modalities = with_times(draft.modalities, self._rows.times)
        form = StoreForm(
            version=1,
            name=draft.name,
            fingerprint=fingerprint_of(self._digest, modalities),
            dtype=draft.dtype,
            items=(self._items[0], self._items[1], self._items[2]),
            training_groups=len(self._training_groups),
            columns=self._rows.columns or (),
            modalities=modalities,
            tables=dict(shards),
            notes=draft.notes,
            provenance=draft.provenance,
        )
        tables = tables_of(draft.folder, form)
        check_unique(tables.items, self._hashes, faults)
        form = with_statistics(tables, self._measured, faults)
        faults.refuse()
        write_form(draft.folder, form)
        return form.card


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
