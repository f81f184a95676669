"""One Arrow shard, memory-mapped: where in the file the values of each row stand."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.store.arrow import arrow_type
from continual_mm.data.store.fields import Field
from continual_mm.data.store.form import ShardForm, edges_of

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
        RefusedError: If it is not there, damaged, or another than it should be.
    """

    def __init__(self, path: Path, form: ShardForm, fields: Sequence[Field]) -> None:
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
            if isinstance(error, RefusedError):
                raise
            raise self._refusal(f"cannot be read ({error})") from error
        return whole, blocks

    def _check_edges(self, form: ShardForm) -> None:
        with self._path.open("rb") as file:
            if form.edges and edges_of(file) != form.edges:
                raise self._refusal("is another file than the one that was written")

    def _strip(self, field: Field, blocks: Sequence[pa.RecordBatch]) -> Strip:
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

    def _column(self, field: Field, block: pa.RecordBatch) -> pa.Array:
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

    def _check_offsets(self, field: Field, strip: Strip, columns: Sequence[pa.Array]) -> None:
        for column, start in zip(columns, strip.offsets_start, strict=True):
            offsets = strip.offsets[start : start + len(column) + 1]
            values = column.buffers()[2] if field.dtype == "string" else column.values
            most = 0 if values is None else len(values)
            if offsets[0] < 0 or (offsets[1:] < offsets[:-1]).any() or offsets[-1] > most:
                raise self._refusal(f"column {field.name!r} has rows outside its values")

    def _refusal(self, problem: str) -> RefusedError:
        return RefusedError(Complaint(str(self._path), problem, _DAMAGED))


def _present(columns: Sequence[pa.Array]) -> NDArray[np.bool_]:
    if not any(column.null_count for column in columns):
        # As long as need be, and one byte of memory.
        return np.broadcast_to(np.True_, sum(len(column) for column in columns))
    parts = [column.is_valid().to_numpy(zero_copy_only=False) for column in columns]
    return np.concatenate(parts)
