"""Tables written as Arrow shards of bounded size that Hugging Face ``datasets`` opens as well."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import DatasetInfo, Features, List, Value
from datasets.arrow_writer import ArrowWriter

from continual_mm.data.store.arrow import arrow_type
from continual_mm.data.store.digest import Digest
from continual_mm.data.store.fields import Field
from continual_mm.data.store.form import ShardForm, edges_of

BLOCK_BYTES = 8 << 20
"""Of rows that are gathered before they are written."""


def shard_name(number: int) -> str:
    """The file of a table's shard."""
    return f"data-{number:05d}.arrow"


class TableWriter:
    """Writes the rows of one table into a folder, block after block and shard after shard.

    ``datasets.load_from_disk`` opens the folder.

    Args:
        folder: Made here.
        fields: The columns.
        digest: Takes in what is written.
        shard_bytes: A shard ends with the block that brings it to this size.
    """

    def __init__(
        self, folder: Path, fields: Sequence[Field], digest: Digest, *, shard_bytes: int
    ) -> None:
        folder.mkdir()
        self._folder = folder
        self._fields = fields
        self._features = Features({field.name: _feature(field) for field in fields})
        self._digest = digest
        self._shard_bytes = shard_bytes
        self._writer: Any = None
        self._waiting: list[Mapping[str, Any]] = []
        self._waiting_bytes = self._rows = self._bytes = 0
        self._shards: list[ShardForm] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Write the next row.

        Args:
            row: By column; for a list an array of one axis, or None where there is none.
        """
        self._waiting.append(row)
        self._waiting_bytes += sum(_size(field, row[field.name]) for field in self._fields)
        if self._waiting_bytes >= min(BLOCK_BYTES, self._shard_bytes):
            self._write_block()

    def finish(self) -> tuple[ShardForm, ...]:
        """Write what ``datasets`` wants to know, and tell what was written."""
        if self._waiting:
            self._write_block()
        if self._writer is not None:
            self._end_shard()
        info = asdict(DatasetInfo(features=self._features))
        state: dict[str, Any] = {
            "_data_files": [{"filename": shard_name(each)} for each in range(len(self._shards))],
            "_fingerprint": "store",
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        for name, said in (("dataset_info.json", info), ("state.json", state)):
            (self._folder / name).write_text(json.dumps(said, indent=2), encoding="utf-8")
        return tuple(self._shards)

    def close(self) -> None:
        """Let go of the file that is being written, finished or not."""
        if self._writer is not None:
            self._writer.close()

    def _write_block(self) -> None:
        columns = [
            _column(field, [row[field.name] for row in self._waiting]) for field in self._fields
        ]
        block = pa.RecordBatch.from_arrays(columns, [field.name for field in self._fields])
        self._waiting, self._waiting_bytes = [], 0
        self._digest.add(self._folder.name, block)
        if self._writer is None:
            path = self._folder / shard_name(len(self._shards))
            self._writer = ArrowWriter(features=self._features, path=str(path))
        self._writer.write_table(pa.Table.from_batches([block]), len(block))
        self._rows += len(block)
        self._bytes += block.nbytes
        if self._bytes >= self._shard_bytes:
            self._end_shard()

    def _end_shard(self) -> None:
        self._writer.finalize()
        path = self._folder / shard_name(len(self._shards))
        with path.open("rb") as file:
            os.fsync(file.fileno())
            edges = edges_of(file)
        self._shards.append(ShardForm(rows=self._rows, bytes=path.stat().st_size, edges=edges))
        self._writer, self._rows, self._bytes = None, 0, 0


def _column(field: Field, rows: Sequence[Any]) -> pa.Array:
    if field.width is None:
        return pa.array(rows, arrow_type(field))
    missing = np.array([row is None for row in rows], dtype=bool)
    nothing = np.zeros(field.width, dtype=field.dtype)
    given = [nothing if row is None else row for row in rows]
    values = pa.array(np.concatenate(given).astype(field.dtype, copy=False))
    mask = pa.array(missing) if missing.any() else None
    if field.width:
        return pa.FixedSizeListArray.from_arrays(values, field.width, mask=mask)
    offsets = np.cumsum([0, *(0 if row is None else len(row) for row in rows)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=mask)


def _size(field: Field, value: Any) -> int:
    """Bytes that a value takes at most; an absent vector takes as many as any other."""
    if field.width:
        return field.width * np.dtype(field.dtype).itemsize
    return 4 * len(value) if isinstance(value, str) else getattr(value, "nbytes", 8)


def _feature(field: Field) -> Any:
    value = Value(field.dtype)
    return value if field.width is None else List(value, length=field.width or -1)
