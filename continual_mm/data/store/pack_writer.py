"""Writes records as a feature pack, for sets that fit into memory."""

import os
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.findings import FaultError
from continual_mm.data.pack import provenance_column, write_pack
from continual_mm.data.schema import KIND, LENGTH, NOT_GIVEN, PRESENT
from continual_mm.data.store.form import DType, ModalityForm, described
from continual_mm.data.store.records import Faults, RowMaker
from continual_mm.definitions.modality import Modality, Provenance
from continual_mm.system.arguments import checked_arguments
from continual_mm.system.errors import Problem
from continual_mm.system.files import write_errors
from continual_mm.system.memory import machine_memory


@checked_arguments
def write_pack_from(
    records: Iterable[Mapping[str, Any]],
    path: str | os.PathLike[str],
    *,
    layout: tuple[Modality, ...],
    dtype: DType = "float32",
    left_out: list[Problem] | None = None,
    memory: int | None = None,
    provenance: Provenance | None = None,
) -> None:
    """Write records as a feature pack, padded to the longest, or to the layout's time if longer.

    Args:
        records: As :func:`~continual_mm.data.store.writer.write_store` takes them.
        path: Where to; an existing file is replaced in one step.
        layout: What the items have.
        dtype: In which features are stored.
        left_out: Takes the problems about faulty records, which then are left out; without it
            they end the writing.
        memory: Bytes that the features may take when they are read, as float32; None for what this
            machine has.
        provenance: How published files were converted into the records.

    Raises:
        InputError: With everything that is wrong, items named, or if they do not fit into memory.
    """
    faults = Faults(str(path), left_out)
    maker = RowMaker(described(layout, str(path), dtype), dtype)
    rows: list[dict[str, Any]] = []
    most = machine_memory() if memory is None else memory
    for record in records:
        try:
            rows.append(maker.row(record))
        except FaultError as fault:
            faults.about_record(record, fault)
        if sum(4 * len(rows) * prod(one.shape) for one in maker.forms()) > most:
            problem = f"does not fit into {most / 1e9:.1f} GB of memory from item {len(rows)} on"
            faults.about_source(problem, "write a store")
            faults.refuse()
    maker.check_occurrence(faults)
    if not faults:
        faults.about_ids(row["ids"] for row in rows)
    faults.refuse()
    arrays: dict[str, NDArray[Any]] = {
        column: np.array([row[column] for row in rows]) for column in ("ids", "split")
    }
    for column in maker.columns:
        absent = "" if column == "text_raw" else NOT_GIVEN
        arrays[column] = np.array([absent if row[column] is None else row[column] for row in rows])
    for modality in maker.forms():
        arrays |= _padded(modality, [row[modality.name] for row in rows], dtype)
    with write_errors(str(path)):
        write_pack(path, arrays | provenance_column(provenance))


def _padded(modality: ModalityForm, rows: list[Any], dtype: str) -> dict[str, NDArray[Any]]:
    name, features = modality.name, modality.modality.features
    longest = modality.shape[0] if modality.kind.has_length else 1
    lengths = np.array([0 if row is None else len(row) // features for row in rows])
    values = np.zeros((len(rows), longest, features), dtype=dtype)
    for number, row in enumerate(rows):
        if row is not None:
            values[number, : lengths[number]] = row.reshape(-1, features)
    found: dict[str, NDArray[Any]] = {name: values.reshape(len(rows), *modality.shape)}
    found[name + KIND] = np.array(str(modality.kind))
    found[name + PRESENT] = lengths > 0
    if modality.kind.has_length:
        found[name + LENGTH] = lengths
    return found
