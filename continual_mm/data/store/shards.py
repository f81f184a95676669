"""Tables written as Arrow shards of bounded size that Hugging Face ``datasets`` opens as well."""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import DatasetInfo, Features, List, Value
from datasets.arrow_writer import ArrowWriter
from numpy.typing import NDArray

from continual_mm.data.statistics import BLOCK_VALUES
from continual_mm.data.store.form import ArrowField, ModalityForm, ShardForm, edges_of
from continual_mm.system.errors import InputError, Problem

BLOCK_BYTES = 8 << 20
"""Of rows that are gathered before they are written."""


class Digest:
    """SHA-256 of columns that come a block of rows at a time."""

    def __init__(self) -> None:
        self._streams: dict[str, Any] = defaultdict(hashlib.sha256)

    def add(self, table: str, block: pa.RecordBatch) -> None:
        """Take in the next rows of a table."""
        for field, column in zip(block.schema, block.columns, strict=True):
            name = f"{table} {field.name} {field.type}"
            self._update(f"{name} valid", _array(column.is_valid()))
            if pa.types.is_string(field.type):
                self._update(f"{name} lengths", _array(pc.binary_length(column)))
                self._update(name, _letters(column))
                continue
            if pa.types.is_list(field.type):
                self._update(f"{name} lengths", _array(column.value_lengths().fill_null(0)))
            nested = pa.types.is_list(field.type) or pa.types.is_fixed_size_list(field.type)
            # What stands behind a null is no content.
            self._update(name, _array(column.flatten() if nested else column.drop_null()))

    def add_array(self, name: str, values: NDArray[Any]) -> None:
        """Take in the next rows of an array that lies beside the tables."""
        self._update(f"{name} {values.dtype.str} {values.shape[1:]}", values)

    def value(self, *words: str) -> str:
        """The fingerprint of all that was taken in, and of some words."""
        lines = sorted(f"{name} {stream.hexdigest()}" for name, stream in self._streams.items())
        return hashlib.sha256("\n".join([*words, *lines]).encode()).hexdigest()

    def _update(self, name: str, values: NDArray[Any]) -> None:
        self._streams[name].update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)


def _array(column: pa.Array) -> NDArray[Any]:
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values


def _letters(column: pa.Array) -> NDArray[np.uint8]:
    """The UTF-8 bytes of a column of strings without nulls."""
    _, offsets, letters = column.buffers()
    if letters is None:
        return np.empty(0, dtype=np.uint8)
    bounds = np.frombuffer(offsets, dtype=np.int32)[column.offset :][: len(column) + 1]
    return np.frombuffer(letters, dtype=np.uint8)[bounds[0] : bounds[-1]]


def fingerprint_of(digest: Digest, modalities: Iterable[ModalityForm]) -> str:
    """The fingerprint of tables and words, and of what they mean."""
    return digest.value(
        *(
            f"{one.name} {one.kind} {one.shape} {one.source} {dict(one.parts)} {one.reduce}"
            for one in modalities
        )
    )


def add_words(digest: Digest, name: str, vectors: NDArray[np.floating]) -> None:
    """Take in the word vectors of a modality, a few megabytes at a time."""
    height = max(1, BLOCK_VALUES // vectors.shape[1])
    for start in range(0, len(vectors), height):
        digest.add_array(f"words {name}", vectors[start : start + height])


def arrow_type(field: ArrowField) -> pa.DataType:
    """The type of a column."""
    value = pa.type_for_alias(field.dtype)
    if field.width is None:
        return value
    return pa.list_(value, field.width) if field.width else pa.list_(value)


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
        self, folder: Path, fields: Sequence[ArrowField], digest: Digest, *, shard_bytes: int
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


def _column(field: ArrowField, rows: Sequence[Any]) -> pa.Array:
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


def _size(field: ArrowField, value: Any) -> int:
    """Bytes that a value takes at most; an absent vector takes as many as any other."""
    if field.width:
        return field.width * np.dtype(field.dtype).itemsize
    return 4 * len(value) if isinstance(value, str) else getattr(value, "nbytes", 8)


def _feature(field: ArrowField) -> Any:
    value = Value(field.dtype)
    return value if field.width is None else List(value, length=field.width or -1)


_DAMAGED = "the store is damaged: write it anew, or copy it whole"


@dataclass(frozen=True, slots=True, eq=False)
class Strip:
    """A column of a shard.

    Attributes:
        values: The whole file as values of the column's dtype.
        first: (blocks + 1,) first row of each block, and the number of rows.
        start: (blocks,) where in ``values`` those of a block begin.
        width: Values per row; 0 where offsets tell.
        offsets: The whole file as offsets.
        offsets_start: (blocks,) where in ``offsets`` those of a block begin.
        present: (rows,) whether a row holds anything.
    """

    values: NDArray[Any]
    first: NDArray[np.int64]
    start: NDArray[np.int64]
    width: int
    offsets: NDArray[np.int32]
    offsets_start: NDArray[np.int64]
    present: NDArray[np.bool_]

    def spans(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(n,) where in ``values`` those of some rows begin, and how many they are."""
        block = np.searchsorted(self.first, rows, side="right") - 1
        within = rows - self.first[block]
        if self.width:
            return self.start[block] + within * self.width, np.full(len(rows), self.width)
        at = self.offsets_start[block] + within
        begin = self.offsets[at].astype(np.int64)
        return self.start[block] + begin, self.offsets[at + 1] - begin


class Mapped:
    """A shard's file in memory, as far as it is looked at.

    Args:
        path: The file.
        form: How many rows and bytes it should have.
        fields: The columns it should have.

    Raises:
        InputError: If it is not there, damaged, or another than it should be.
    """

    def __init__(self, path: Path, form: ShardForm, fields: Sequence[ArrowField]) -> None:
        self._path = path
        self._whole, blocks = self._opened(form)
        rows = sum(len(block) for block in blocks)
        if rows != form.rows:
            raise self._refusal(f"has {rows} rows, but {form.rows} are expected")
        self.strips = {field.name: self._strip(field, blocks) for field in fields}

    def blocks(self) -> Iterator[pa.RecordBatch]:
        """All rows, a block at a time, with the expected columns only."""
        with pa.ipc.open_stream(self._whole) as stream:
            for block in stream:
                yield block.select(list(self.strips))

    def _opened(self, form: ShardForm) -> tuple[pa.Buffer, list[pa.RecordBatch]]:
        try:
            if not self._path.is_file():
                raise self._refusal("is no file")
            file = pa.memory_map(str(self._path))
            if file.size() != form.bytes:
                problem = f"has {file.size()} bytes, but {form.bytes} are expected"
                raise self._refusal(problem)
            self._check_edges(form)
            whole = file.read_buffer()
            with pa.ipc.open_stream(whole) as stream:
                # Names are decoded here, so that damaged ones are found out.
                self._names = frozenset(stream.schema.names)
                blocks = [block for block in stream if len(block)]
            for block in blocks:
                block.validate()
        except (OSError, ValueError, pa.ArrowException) as error:
            if isinstance(error, InputError):
                raise
            raise self._refusal(f"cannot be read ({error})") from error
        return whole, blocks

    def _check_edges(self, form: ShardForm) -> None:
        with self._path.open("rb") as file:
            if form.edges and edges_of(file) != form.edges:
                raise self._refusal("is another file than the one that was written")

    def _strip(self, field: ArrowField, blocks: Sequence[pa.RecordBatch]) -> Strip:
        columns = [self._column(field, block) for block in blocks]
        first = np.cumsum([0, *(len(block) for block in blocks)])
        string, nested = field.dtype == "string", field.width is not None
        dtype = np.dtype(np.uint8 if string else field.dtype)
        ragged = string or field.width == 0
        inner = [column.values if nested else column for column in columns]
        starts = [self._at(each.buffers()[-1], dtype) for each in inner]
        tables = [self._at(each.buffers()[1], np.dtype(np.int32)) for each in columns if ragged]
        strip = Strip(
            values=np.frombuffer(self._whole, dtype, self._whole.size // dtype.itemsize),
            first=first,
            start=np.array(starts, dtype=np.int64),
            width=0 if ragged else field.width or 1,
            offsets=np.frombuffer(self._whole, np.int32, self._whole.size // 4),
            offsets_start=np.array(tables, dtype=np.int64),
            present=_present(columns),
        )
        if ragged:
            self._check_offsets(field, strip, columns)
        return strip

    def _column(self, field: ArrowField, block: pa.RecordBatch) -> pa.Array:
        if field.name not in self._names:
            raise self._refusal(f"has no column {field.name!r}")
        column = block.column(field.name)
        if column.type != (expected := arrow_type(field)):
            problem = f"column {field.name!r} is {column.type}, but {expected} is expected"
            raise self._refusal(problem)
        return column

    def _at(self, buffer: pa.Buffer | None, dtype: np.dtype[Any]) -> int:
        """Where a block's buffer begins in the file, in values of a dtype."""
        if buffer is None or buffer.size == 0:
            return 0
        place = buffer.address - self._whole.address
        if not 0 <= place <= self._whole.size - buffer.size or place % dtype.itemsize:
            raise self._refusal("is compressed or out of line, so that it cannot be mapped")
        return int(place // dtype.itemsize)

    def _check_offsets(self, field: ArrowField, strip: Strip, columns: Sequence[pa.Array]) -> None:
        for column, start in zip(columns, strip.offsets_start, strict=True):
            offsets = strip.offsets[start : start + len(column) + 1]
            values = column.buffers()[2] if field.dtype == "string" else column.values
            most = 0 if values is None else len(values)
            if offsets[0] < 0 or (offsets[1:] < offsets[:-1]).any() or offsets[-1] > most:
                raise self._refusal(f"column {field.name!r} has rows outside its values")

    def _refusal(self, problem: str) -> InputError:
        return InputError(Problem(str(self._path), problem, _DAMAGED))


def _present(columns: Sequence[pa.Array]) -> NDArray[np.bool_]:
    if not any(column.null_count for column in columns):
        # As long as need be, and one byte of memory.
        return np.broadcast_to(np.True_, sum(len(column) for column in columns))
    parts = [column.is_valid().to_numpy(zero_copy_only=False) for column in columns]
    return np.concatenate(parts)
