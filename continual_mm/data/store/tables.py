"""Tables in Arrow shards, which Hugging Face ``datasets`` opens as well: written and mapped."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import DatasetInfo, Features
from datasets.arrow_writer import ArrowWriter
from numpy.typing import NDArray

from continual_mm.data.store.form import DAMAGED, ModalityForm, ShardForm, TableName
from continual_mm.system.errors import InputError

BLOCK_BYTES = 8 << 20  # of rows that are collected before they are written

_OPTIONAL = {"label": pa.int64(), "group": pa.int64(), "text_raw": pa.string()}


def schemas_of(
    columns: Iterable[str], modalities: Sequence[ModalityForm], dtype: str
) -> dict[TableName, pa.Schema]:
    """The columns of all tables; ``columns`` are the optional ones that items have."""
    ids, features = ("ids", pa.string()), pa.type_for_alias(dtype)
    items = [ids, ("split", pa.int8()), *((name, _OPTIONAL[name]) for name in columns)]
    for one in modalities:
        if one.source == "windows":
            bounds = pa.list_(pa.int32(), len(one.parts))
            types = [pa.int64(), bounds, bounds]
        elif one.source == "words":
            types = [pa.list_(pa.int32())]
        else:
            types = [pa.list_(features, -1 if one.kind.has_length else one.modality.features)]
        items += zip(one.columns, types, strict=True)
    parts = dict.fromkeys(part for modality in modalities for part in modality.parts)
    return {
        "items": pa.schema(items),
        "recordings": pa.schema([ids, *((part, pa.list_(features)) for part in parts)]),
        # The number of a group, which items hold, is its row.
        "groups": pa.schema([ids]),
    }


class Digest:
    """SHA-256 of columns that are given a block of rows at a time."""

    def __init__(self) -> None:
        self._streams: dict[str, Any] = defaultdict(hashlib.sha256)

    def add(self, table: str, block: pa.RecordBatch) -> None:
        """Take in the next rows of a table."""
        for field, column in zip(block.schema, block.columns, strict=True):
            name = f"{table} {field.name} {field.type}"
            self._update(f"{name} valid", _array(column.is_valid()))
            if pa.types.is_string(field.type):
                self._update(f"{name} lengths", _array(pc.binary_length(column)))
                # Of a damaged file they need not be UTF-8.
                letters = b"".join(column.view(pa.binary()).drop_null().to_pylist())
                self._update(name, np.frombuffer(letters, dtype=np.uint8))
                continue
            if pa.types.is_list(field.type):
                self._update(f"{name} lengths", _array(column.value_lengths().fill_null(0)))
            # The values of a null are no content.
            self._update(name, _array(column.flatten() if _nested(field) else column.drop_null()))

    def add_array(self, name: str, values: NDArray[Any]) -> None:
        """Take in the next rows of an array that lies beside the tables."""
        self._update(f"{name} {values.dtype.str} {values.shape[1:]}", values)

    def fingerprint(
        self, modalities: Iterable[ModalityForm], *, without: Iterable[str] = ()
    ) -> str:
        """Of all that was taken in, and of what it means; some columns of tables left out."""
        left_out = tuple(f"{column} " for column in without)
        meaning = (
            f"{one.name} {one.kind} {one.shape} {one.source} {dict(one.parts)} {one.reduce}"
            for one in modalities
        )
        lines = sorted(
            f"{name} {stream.hexdigest()}"
            for name, stream in self._streams.items()
            if not name.startswith(left_out)
        )
        return hashlib.sha256("\n".join([*meaning, *lines]).encode()).hexdigest()

    def _update(self, name: str, values: NDArray[Any]) -> None:
        self._streams[name].update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)


def _array(column: pa.Array) -> NDArray[Any]:
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values


def _nested(field: pa.Field) -> bool:
    return isinstance(field.type, pa.ListType | pa.FixedSizeListType)


def shard_name(number: int) -> str:
    """The file of a table's shard."""
    return f"data-{number:05d}.arrow"


class TableWriter:
    """Writes a table as ``datasets.load_from_disk`` opens it, in shards of some ``shard_bytes``."""

    def __init__(
        self, folder: Path, schema: pa.Schema, digest: Digest, *, shard_bytes: int
    ) -> None:
        folder.mkdir()
        self._folder = folder
        self._schema = schema
        self._features = Features.from_arrow_schema(schema)
        self._digest = digest
        self._shard_bytes = shard_bytes
        self._writer: Any = None
        self._waiting: list[Mapping[str, Any]] = []
        self._waiting_bytes = self._rows = self._bytes = 0
        self._shards: list[ShardForm] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Write the next row; for a list it has an array of one axis, or None."""
        self._waiting.append(row)
        self._waiting_bytes += sum(_size(field.type, row[field.name]) for field in self._schema)
        if self._waiting_bytes >= min(BLOCK_BYTES, self._shard_bytes):
            self._write_block()

    def finish(self) -> tuple[ShardForm, ...]:
        """Write what ``datasets`` needs beside the shards, and return the shards' forms."""
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
        for name, content in (("dataset_info.json", info), ("state.json", state)):
            (self._folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")
        return tuple(self._shards)

    def close(self) -> None:
        """Close the file that is being written, finished or not."""
        if self._writer is not None:
            self._writer.close()

    def _write_block(self) -> None:
        columns = [
            _column(field.type, [row[field.name] for row in self._waiting])
            for field in self._schema
        ]
        block = pa.RecordBatch.from_arrays(columns, schema=self._schema)
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
        size = (self._folder / shard_name(len(self._shards))).stat().st_size
        self._shards.append(ShardForm(rows=self._rows, bytes=size))
        self._writer, self._rows, self._bytes = None, 0, 0


def _column(kind: pa.DataType, rows: list[Any]) -> pa.Array:
    missing = [row is None for row in rows]
    if not pa.types.is_fixed_size_list(kind) or not any(missing):
        return pa.array(rows, kind)
    # Arrow would make nulls of the values of a null, too.
    zeros = np.zeros(kind.list_size, kind.value_type.to_pandas_dtype())
    values = np.concatenate([zeros if row is None else row for row in rows])
    return pa.FixedSizeListArray.from_arrays(values, kind.list_size, mask=pa.array(missing))


def _size(kind: pa.DataType, value: Any) -> int:
    """Bytes that a value takes at most; an absent vector takes as many as any other."""
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size * kind.value_type.bit_width // 8)
    return 4 * len(value) if isinstance(value, str) else getattr(value, "nbytes", 8)


def stored_file(store: Path, *names: str) -> Path:
    """A file of a store; an InputError if it is missing, or no file of that folder."""
    path = store.joinpath(*names)
    try:
        real = path.resolve(strict=True)
    except OSError as error:
        problem = f"cannot be opened: {error.strerror or error}"
        raise InputError.at(path, problem, "copy the store whole") from error
    if real != store.resolve().joinpath(*names):
        raise InputError.at(path, "leads out of the store", "copy the file itself")
    if not real.is_file():
        raise InputError.at(path, "is no file", DAMAGED)
    return path


class StoredTable:
    """The rows of one table, mapped when first needed; any number of threads may read them."""

    def __init__(
        self, store: Path, name: TableName, shards: Sequence[ShardForm], schema: pa.Schema
    ) -> None:
        self.name = name
        self._store = store
        self._shards = tuple(shards)
        self._schema = schema
        self._rows = sum(shard.rows for shard in shards)
        self._columns: dict[str, _Column] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredTable, (self._store, self.name, self._shards, self._schema)

    def __len__(self) -> int:
        return self._rows

    def column(self, column: str, *, null: int = 0) -> NDArray[Any]:
        """(rows,) all values of a column without lists, in memory, with a number for nulls."""
        chunks = [block.column(column).fill_null(null) for block in self.blocks()]
        return np.concatenate([_array(chunk) for chunk in chunks])

    def present(self, column: str) -> NDArray[np.bool_]:
        """(rows,) which rows of a column are not null."""
        return np.concatenate([_array(block.column(column).is_valid()) for block in self.blocks()])

    def counts(self, column: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) how many values some rows have."""
        return self._located(column, rows)[2]

    def read(
        self,
        column: str,
        rows: NDArray[np.int64],
        width: int = 1,
        window: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    ) -> NDArray[Any]:
        """(steps, width) the steps of some (n,) rows in any order, row after row.

        A window is (n,) first steps, of ``width`` values each, and how many; without it all.
        """
        file, start, count = self._located(column, rows)
        begin, steps = window or (np.zeros_like(count), count // width)
        places, values = steps_of(start + begin * width, steps, width), self._column(column).values
        found = [
            _windows(values[number], width)[places[here]]
            for number, here in _runs(np.repeat(file, steps))
        ]
        if len(found) == 1:
            return found[0]
        return np.concatenate([np.empty((0, width), values[0].dtype), *found])

    def blocks(self) -> Iterator[pa.RecordBatch]:
        """All rows, a block at a time."""
        return chain.from_iterable(blocks for _, blocks in self._files)

    def _located(
        self, column: str, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.int64]]:
        """(n,) the file of some rows, where in it their values begin, and how many they are."""
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"row {rows.min()} or {rows.max()} of {len(self)}")
        found, (file_of, first) = self._column(column), self._bounds
        block = np.searchsorted(first, rows, side="right") - 1
        file, within, start = file_of[block], rows - first[block], found.starts[block]
        if found.width:
            return file, start + within * found.width, np.full(len(rows), found.width)
        at, count = found.offset_starts[block] + within, np.empty_like(rows)
        for number, here in _runs(file):
            offsets = found.offsets[number]
            begin = offsets[at[here]]
            start[here] += begin
            count[here] = offsets[at[here] + 1] - begin
        return file, start, count

    def _column(self, column: str) -> "_Column":
        if column not in self._columns:
            self._columns[column] = _column_of(self._files, self._schema.field(column))
        return self._columns[column]

    @cached_property
    def _bounds(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(blocks,) the file and the first row of each block."""
        rows = [len(block) for block in self.blocks()]
        per_file = [len(blocks) for _, blocks in self._files]
        return np.repeat(np.arange(len(per_file)), per_file), np.cumsum([0, *rows])[:-1]

    @cached_property
    def _files(self) -> list[tuple[pa.Buffer, list[pa.RecordBatch]]]:
        # Two threads that come first at once both open the files, and one result is kept.
        return [
            _opened(stored_file(self._store, self.name, shard_name(number)), form, self._schema)
            for number, form in enumerate(self._shards)
        ]


def steps_of(
    starts: NDArray[np.int64], counts: NDArray[np.int64], stride: int = 1
) -> NDArray[np.int64]:
    """Where every step of some runs begins, run after run."""
    ends = np.cumsum(counts)
    within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
    found: NDArray[np.int64] = np.repeat(starts, counts) + within * stride
    return found


def _windows(values: NDArray[Any], width: int) -> NDArray[Any]:
    """A view of every run of ``width`` values, so that whole runs are copied and places checked."""
    size, count = values.itemsize, max(0, len(values) - width + 1)
    return np.ndarray((count, width), values.dtype, values, strides=(size, size))


def _runs(files: NDArray[np.intp]) -> Iterator[tuple[int, slice]]:
    """Each file, and where rows of it follow one another; ascending rows are one run for each."""
    edges = np.flatnonzero(np.diff(files)) + 1
    starts = [0, *edges.tolist()] if len(files) else []
    for start, end in pairwise([*starts, len(files)]):
        yield int(files[start]), slice(start, end)


@dataclass(frozen=True, slots=True, eq=False)
class _Column:
    """Where the values of a column are in the mapped files."""

    values: list[NDArray[Any]]  # each file as values of the column's dtype
    starts: NDArray[np.int64]  # (blocks,) where in its file the values of a block begin
    width: int  # values per row; 0 where there are offsets
    offsets: list[NDArray[np.int32]]  # each file as offsets
    offset_starts: NDArray[np.int64]  # (blocks,) where in its file the offsets of a block begin


def _column_of(files: list[tuple[pa.Buffer, list[pa.RecordBatch]]], field: pa.Field) -> _Column:
    kind, nested = field.type, _nested(field)
    text, ragged = pa.types.is_string(kind), pa.types.is_list(kind)
    inner = kind.value_type if nested else kind
    dtype = np.dtype(np.uint8 if text else inner.to_pandas_dtype())
    starts, offset_starts = [], []
    for whole, blocks in files:
        for column in (block.column(field.name) for block in blocks):
            values = (column.values if nested else column).buffers()[-1]
            starts.append(_place(values, whole) // dtype.itemsize)
            offset_starts.append(_place(column.buffers()[1], whole) // 4 if text or ragged else 0)
    return _Column(
        [np.frombuffer(whole, dtype, whole.size // dtype.itemsize) for whole, _ in files],
        np.array(starts, dtype=np.int64),
        0 if text or ragged else kind.list_size if nested else 1,
        [np.frombuffer(whole, np.int32, whole.size // 4) for whole, _ in files],
        np.array(offset_starts, dtype=np.int64),
    )


def _place(buffer: pa.Buffer | None, whole: pa.Buffer) -> int:
    return buffer.address - whole.address if buffer else 0


def _opened(
    path: Path, form: ShardForm, schema: pa.Schema
) -> tuple[pa.Buffer, list[pa.RecordBatch]]:
    """A shard's file, mapped, and its blocks with the expected columns."""
    try:
        file = pa.memory_map(str(path))
        if file.size() != form.bytes:
            raise _DamageError(f"has {file.size()} bytes, but {form.bytes} are expected")
        whole = file.read_buffer()
        with pa.ipc.open_stream(whole) as stream:
            _check_types(stream.schema, schema)
            blocks = [block.select(schema.names) for block in stream if len(block)]
        for block in blocks:
            _check_block(block, whole)
        if (rows := sum(len(block) for block in blocks)) != form.rows:
            raise _DamageError(f"has {rows} rows, but {form.rows} are expected")
    except _DamageError as damage:
        raise InputError.at(path, str(damage), DAMAGED) from damage
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError.at(path, f"cannot be read ({error})", DAMAGED) from error
    return whole, blocks


class _DamageError(Exception):
    """What is wrong with a shard."""


def _check_types(found: pa.Schema, expected: pa.Schema) -> None:
    for field in expected:
        if found.names.count(field.name) != 1:
            raise _DamageError(f"has no column {field.name!r}")
        if (kind := found.field(field.name).type) != field.type:
            raise _DamageError(f"column {field.name!r} is {kind}, but {field.type} is expected")


def _check_block(block: pa.RecordBatch, whole: pa.Buffer) -> None:
    """Refuse what would be read outside of the file, or is not mapped from it."""
    block.validate()
    for name, column in zip(block.schema.names, block.columns, strict=True):
        for buffer in filter(None, column.buffers()):
            place = _place(buffer, whole)
            if not 0 <= place <= whole.size - buffer.size or place % 8:
                raise _DamageError("is compressed or out of line, so that it cannot be mapped")
        # Letters need not be UTF-8 here; what matters is where each text begins and ends.
        text = pa.types.is_string(column.type)
        try:
            (column.view(pa.binary()) if text else column).validate(full=True)
        except pa.ArrowInvalid as error:
            raise _DamageError(f"column {name!r} has rows outside its values") from error


@dataclass(frozen=True, slots=True, eq=False)
class StoredTexts:
    """A column of texts."""

    table: StoredTable
    column: str

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.str_]:
        chosen = np.asarray(rows)
        if chosen.dtype == np.bool_:
            chosen = np.flatnonzero(chosen)
        rows = chosen.astype(np.int64).reshape(-1)
        counts = self.table.counts(self.column, rows)
        letters = np.zeros((len(rows), max(1, int(counts.max(initial=0)))), dtype=np.uint8)
        places = steps_of(np.arange(len(rows)) * letters.shape[1], counts)
        letters.reshape(-1)[places] = self.table.read(self.column, rows)[:, 0]
        texts = np.char.decode(letters.view(f"S{letters.shape[1]}"), "utf-8", "replace")
        found: NDArray[np.str_] = texts.reshape(chosen.shape)[()]
        return found
