"""Writes a store: records one at a time, into a folder that is complete or absent."""

import os
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import ArrayLike

from continual_mm.data.findings import FaultError
from continual_mm.data.provenance import ProvenanceForm
from continual_mm.data.statistics import BLOCK_VALUES, RunningStatistics, weighted_moments
from continual_mm.data.store.form import (
    DType,
    Layout,
    ModalityForm,
    StoreForm,
    TableName,
    Words,
    described,
    write_form,
)
from continual_mm.data.store.records import (
    AS_FLOAT32,
    OPTIONAL,
    Faults,
    RowMaker,
    sound_id,
    sound_part,
    sound_values,
)
from continual_mm.data.store.sources import Tables, WordRows, add_words, measured, word_file
from continual_mm.data.store.tables import Digest, StoredTexts, TableWriter, schemas_of
from continual_mm.definitions.modality import DatasetCard, Provenance
from continual_mm.system.arguments import checked_arguments
from continual_mm.system.errors import InputError, Problem
from continual_mm.system.files import new_folder, write_errors

SHARD_BYTES = 500 << 20  # a file of a store is about as large

_SMALLEST = float(np.finfo(np.float16).smallest_normal)
"""Below it float16 loses digit after digit, down to nothing."""


@checked_arguments
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
        records: Items by column: ``ids`` (text), ``split`` (0, 1 or 2), ``label`` (a whole number),
            ``group`` (a text or a whole number), ``text_raw`` (a text), and for each modality its
            features, (time, ...) or for vectors (features,). None, NaN in place of a label, group
            or text, or no such key, in an item that lacks it.
        folder: Where to; it must not be there, and is not there unless all went well.
        layout: What the items have.
        name: The dataset's name; without one, the folder's.
        dtype: In which features are stored. Float16 keeps three digits, up to 65504.
        left_out: Takes the problems about faulty records, which then are left out; without it
            they end the writing.
        shard_bytes: About how large a file is.
        notes: What users of the store should know, in sentences.
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


@checked_arguments
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
    """
    target = Path(folder)
    with new_folder(target) as place:
        modalities = described(layout, str(target), dtype)
        draft = StoreForm.model_construct(
            version=1,
            name=name or target.name,
            dtype=dtype,
            modalities=modalities,
            notes=notes,
            provenance=ProvenanceForm.of(provenance),
        )
        faults = Faults(str(target), left_out)
        writer = StoreWriter(place, draft, layout, faults, shard_bytes=shard_bytes)
        try:
            yield writer
            writer.finish()
        except BaseException:
            # The error that ended the writing is raised, not one that follows from it here.
            with suppress(Exception):
                writer.close()
            raise


class StoreWriter:
    """Takes recordings and items; ``draft`` is what is known of the store before the first."""

    def __init__(
        self, folder: Path, draft: StoreForm, layout: Layout, faults: Faults, *, shard_bytes: int
    ) -> None:
        self._folder, self._draft, self._faults = folder, draft, faults
        self._shard_bytes = shard_bytes
        self._digest = Digest()
        self._tables: dict[TableName, TableWriter] = {}
        self._card: DatasetCard | None = None
        self._hashes = array("Q")
        self._training_groups: set[int] = set()
        self._without_group = 0  # training items, each of which is a group by itself
        self._parts = {part: n for one in draft.modalities for part, n in one.parts.items()}
        self._rows = RowMaker(draft.modalities, draft.dtype)
        # Windows are measured at the end.
        self._values = {
            one.name: RunningStatistics(one.modality.features)
            for one in draft.modalities
            if one.source == "values"
        }
        self._words = {
            one.name: np.zeros(one.words, dtype=np.int64)
            for one in draft.modalities
            if one.source == "words"
        }
        for one in layout:
            if isinstance(one, Words):
                self._write_words(one)
        faults.refuse()

    def recording(self, name: str, parts: Mapping[str, ArrayLike]) -> int:
        """Write a recording: (time, features) of every part that it has.

        Gives its number, for :class:`Window`. Raises an InputError if there is anything wrong with
        it or the disk is full, a ValueError if the store is finished.
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
        with write_errors(self._faults.source):
            self._table("recordings").add(row)
        return number

    def item(self, record: Mapping[str, Any]) -> None:
        """Write an item; raises as :meth:`recording`, but of faulty items not before the end."""
        self._check_open()
        try:
            row = self._rows.row(record)
        except FaultError as fault:
            self._faults.about_record(record, fault)
            return
        if self._faults:
            return
        digest = blake2b(row["ids"].encode(), digest_size=8).digest()
        self._hashes.append(int.from_bytes(digest))
        if row["split"] == 0:
            self._measure(row)
        with write_errors(self._faults.source):
            self._table("items").add(row)

    def finish(self) -> DatasetCard:
        """End the writing; nothing can be written any more. Raises everything that was wrong."""
        if self._card is None:
            with write_errors(self._faults.source):
                for name in self._rows.groups:
                    self._table("groups").add({"ids": name})
                self._card = self._finished()
        return self._card

    def close(self) -> None:
        """Close the files, whether all is written or not."""
        for table in self._tables.values():
            table.close()

    def _check_open(self) -> None:
        if self._card is not None:
            raise ValueError("the store is finished: nothing more can be written")

    def _table(self, name: TableName) -> TableWriter:
        if name not in self._tables:
            modalities, dtype = self._draft.modalities, self._draft.dtype
            self._tables[name] = TableWriter(
                self._folder / name,
                schemas_of(OPTIONAL, modalities, dtype)[name],
                self._digest,
                shard_bytes=self._shard_bytes,
            )
        return self._tables[name]

    def _write_words(self, words: Words) -> None:
        """Write the vectors of a modality, a few megabytes at a time."""
        name, vectors, features = words.modality.name, words.vectors, words.modality.features
        if vectors.ndim != 2 or vectors.shape[1] != features or vectors.dtype.kind != "f":
            problem = f"word vectors of {name!r} are {vectors.dtype} of shape {vectors.shape}"
            self._faults.about_source(problem, f"give floats of shape (words, {features})")
            return
        dtype, height = self._draft.dtype, max(1, BLOCK_VALUES // features)
        with write_errors(self._faults.source):
            path = self._folder / word_file(name)
            shape, descr = (words.count, features), np.dtype(dtype).str
            header = {"descr": descr, "fortran_order": False, "shape": shape}
            # Written, not mapped: a full disk is then an error, and ends no process.
            with path.open("xb") as file:
                write_array_header_1_0(file, header)
                try:
                    for start in range(0, len(vectors), height):
                        block = np.asarray(vectors[start : start + height])
                        file.write(sound_values(name, block, dtype).tobytes())
                except FaultError as fault:
                    problem = f"word vectors of {name!r}: {fault.problem}"
                    self._faults.about_source(problem, fault.remedy)
                    return
                file.write(bytes(words.blank * features * np.dtype(dtype).itemsize))
        add_words(self._digest, name, np.load(path, mmap_mode="r", allow_pickle=False))

    def _finished(self) -> DatasetCard:
        rows, faults = self._rows, self._faults
        shards = {name: table.finish() for name, table in self._tables.items()}
        rows.check_occurrence(faults)
        faults.refuse()
        modalities = rows.forms()
        training, validation, test = rows.items
        groups = len(self._training_groups) + self._without_group
        # A column that no item has is all null in the shards, and no part of the store.
        nowhere = [f"items {one}" for one in OPTIONAL if one not in rows.columns]
        form = self._draft.model_copy(
            update={
                "fingerprint": self._digest.fingerprint(modalities, without=nowhere),
                "items": (training, validation, test),
                "presence": rows.presence,
                "training_groups": groups if "group" in rows.columns else 0,
                "columns": rows.columns,
                "modalities": modalities,
                "tables": shards,
            }
        )
        tables = Tables(self._folder, form)
        # Only ids whose hashes occur more than once are read.
        hashes = np.frombuffer(self._hashes, dtype=np.uint64)
        ordered = np.sort(hashes)
        suspects = np.flatnonzero(np.isin(hashes, ordered[1:][ordered[1:] == ordered[:-1]]))
        faults.about_ids(StoredTexts(tables.items, "ids")[suspects].tolist())
        modalities = tuple(self._measured(one, tables) for one in modalities)
        faults.refuse()
        form = StoreForm.model_validate(dict(form) | {"modalities": modalities})
        write_form(self._folder, form)
        return form.card

    def _measure(self, row: Mapping[str, Any]) -> None:
        """Take in a training item."""
        for name, statistics in self._values.items():
            if row[name] is not None:
                statistics.add(row[name].reshape(-1, statistics.features))
        for name, counts in self._words.items():
            if row[name] is not None:
                np.add.at(counts, row[name], 1)
        if row["group"] is None:
            self._without_group += 1
        else:
            self._training_groups.add(row["group"])

    def _measured(self, modality: ModalityForm, tables: Tables) -> ModalityForm:
        """The form of a modality with mean and deviation of the training items."""
        source = tables.sources[modality.name]
        if modality.name in self._values:
            found = self._values[modality.name].result()
        elif isinstance(source, WordRows):
            found = weighted_moments(source.vectors, self._words[modality.name])
        else:
            found = measured(tables, modality)
        if found is None:
            if self._rows.items[0]:
                problem = f"no training item has the modality {modality.name!r}"
                self._faults.about_source(problem, "nothing could be learnt of it")
            return modality
        size = float(np.hypot(*found).max())
        if self._draft.dtype == "float16" and size < _SMALLEST:
            problem = f"are about {size:.1g}, of which float16 keeps no three digits"
            if not size:
                problem = "are 0 in all training items, or too small for float16"
            self._faults.about_source(f"values of {modality.name!r} {problem}", AS_FLOAT32)
        mean, deviation = (tuple(each.tolist()) for each in found)
        return modality.model_copy(update={"mean": mean, "deviation": deviation})
