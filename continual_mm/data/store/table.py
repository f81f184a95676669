"""A stored table: shards, opened when they are first needed, and rows gathered from them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from continual_mm.data.store.form import ArrowField, ShardForm
from continual_mm.data.store.shards import Mapped, shard_name
from continual_mm.system.errors import InputError, Problem


def steps_of(
    starts: NDArray[np.int64], counts: NDArray[np.int64], stride: int = 1
) -> NDArray[np.int64]:
    """Where every step of some runs begins, run after run.

    >>> steps_of(np.array([10, 50]), np.array([3, 2]), 4).tolist()
    [10, 14, 18, 50, 54]
    """
    ends = np.cumsum(counts)
    within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
    found: NDArray[np.int64] = np.repeat(starts, counts) + within * stride
    return found


def gathered(values: NDArray[Any], starts: NDArray[np.int64], width: int) -> NDArray[Any]:
    """(n, width) values that begin at (n,) places of an array of one axis; these may overlap.

    Raises:
        IndexError: If they reach beyond it.

    >>> gathered(np.arange(10), np.array([7, 0]), 3).tolist()
    [[7, 8, 9], [0, 1, 2]]
    """
    size = values.itemsize
    # Every place at once as a view, so that whole rows are copied, and places are checked.
    views = max(0, len(values) - width + 1)
    every: NDArray[Any] = np.ndarray((views, width), values.dtype, values, strides=(size, size))
    found: NDArray[Any] = every[starts]
    return found


def blocks_of(sizes: NDArray[np.int64], most: int) -> Iterator[slice]:
    """Slices of rows whose sizes sum up to at most ``most``, or single rows that exceed it.

    >>> list(blocks_of(np.array([3, 3, 9, 1, 1]), 6))
    [slice(0, 2, None), slice(2, 3, None), slice(3, 5, None)]
    """
    ends, start = np.cumsum(sizes), 0
    while start < len(sizes):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield slice(start, stop)
        start = stop


class StoredTable:
    """Rows of one table of a store.

    Any number of threads may read. Another process opens the shards for itself.

    Args:
        folder: Of the table.
        shards: What should be in it.
        fields: The columns.
    """

    def __init__(
        self, folder: Path, shards: Sequence[ShardForm], fields: Sequence[ArrowField]
    ) -> None:
        self.folder = folder
        self.shards = tuple(shards)
        self.fields = tuple(fields)
        self._starts = np.cumsum([0, *(shard.rows for shard in shards)])

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredTable, (self.folder, self.shards, self.fields)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def scalars(self, column: str) -> NDArray[Any]:
        """(rows,) a column that has one value per row, in memory."""
        every = [self._strips(column)[k] for k in range(len(self.shards))]
        parts = [strip.values[strip.spans(np.arange(strip.first[-1]))[0]] for strip in every]
        joined: NDArray[Any] = np.concatenate(parts)
        return joined

    def present(self, column: str) -> NDArray[np.bool_]:
        """(rows,) which rows hold anything in a column."""
        return np.concatenate([strip.present for strip in self._strips(column)])

    def counts(self, column: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) how many values some rows hold."""
        return self._spans(column, rows)[2]

    def steps(
        self,
        column: str,
        rows: NDArray[np.int64],
        features: int,
        window: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    ) -> NDArray[Any]:
        """The steps of some rows, row after row.

        Args:
            column: Its values are taken ``features`` at a time.
            rows: (n,) in any order, repeats allowed.
            features: Per step.
            window: (n,) first steps, and how many; without it all.

        Returns:
            (steps, features).
        """
        shard, start, count = self._spans(column, rows)
        begin, number = window or (np.zeros_like(count), count // features)
        places = steps_of(start + begin * features, number, features)
        strips, runs = self._strips(column), list(_runs(np.repeat(shard, number)))
        if len(runs) == 1:
            return gathered(strips[runs[0][0]].values, places, features)
        found = np.empty((len(places), features), dtype=strips[0].values.dtype)
        for each, here in runs:
            found[here] = gathered(strips[each].values, places[here], features)
        return found

    def blocks(self) -> Iterator[pa.RecordBatch]:
        """All rows, a block at a time."""
        for shard in self._opened:
            yield from shard.blocks()

    def _spans(
        self, column: str, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(n,) the shard of some rows, where their values begin in it, and how many they are."""
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"row {rows.min()} or {rows.max()} of {len(self)}")
        shard = np.searchsorted(self._starts, rows, side="right") - 1
        start, count = np.empty_like(rows), np.empty_like(rows)
        for each, here in _runs(shard):
            strip = self._strips(column)[each]
            start[here], count[here] = strip.spans(rows[here] - self._starts[each])
        return shard, start, count

    def _strips(self, column: str) -> list[Any]:
        return [shard.strips[column] for shard in self._opened]

    @cached_property
    def _opened(self) -> list[Mapped]:
        # Two threads that come first at once both open the files, and one result is kept.
        return [self._open(number, form) for number, form in enumerate(self.shards)]

    def _open(self, number: int, form: ShardForm) -> Mapped:
        path = self.folder / shard_name(number)
        try:
            inside = (
                path.resolve(strict=True).parent == self.folder.parent.resolve() / self.folder.name
            )
        except OSError as error:
            raise InputError(_missing(path, error)) from error
        if not inside:
            raise InputError(Problem(str(path), "leads out of the store", "copy the file itself"))
        return Mapped(path, form, self.fields)


def _runs(shard: NDArray[np.int64]) -> Iterator[tuple[int, slice]]:
    """Each shard, and where rows of it follow one another; ascending rows are one run for each."""
    edges = np.flatnonzero(np.diff(shard)) + 1
    starts = [0, *edges.tolist()] if len(shard) else []
    for start, end in pairwise([*starts, len(shard)]):
        yield int(shard[start]), slice(start, end)


def _missing(path: Path, error: OSError) -> Problem:
    return Problem(
        str(path), f"cannot be opened: {error.strerror or error}", "copy the store whole"
    )


@dataclass(frozen=True, slots=True, eq=False)
class StoredTexts:
    """A column of texts.

    Attributes:
        table: That has it.
        column: Its name.
    """

    table: StoredTable
    column: str

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.str_]:
        chosen = np.asarray(rows)
        if chosen.dtype == np.bool_:
            chosen = np.flatnonzero(chosen)
        flat = chosen.astype(np.int64).reshape(-1)
        counts = self.table.counts(self.column, flat)
        letters = np.zeros((len(flat), max(1, int(counts.max(initial=0)))), dtype=np.uint8)
        places = steps_of(np.arange(len(flat)) * letters.shape[1], counts)
        letters.reshape(-1)[places] = self.table.steps(self.column, flat, 1)[:, 0]
        texts: NDArray[np.str_] = np.char.decode(
            letters.view(f"S{letters.shape[1]}"), "utf-8", "replace"
        )
        found: NDArray[np.str_] = texts.reshape(chosen.shape)[()]
        return found


class Source(Protocol):
    """Steps of some items, all of which have the modality."""

    def counts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) how many steps each has; 1 for vectors."""

    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(steps, features) floats, row after row."""


@dataclass(frozen=True, slots=True, eq=False)
class KeptValues:
    """A column of the items.

    Attributes:
        items: The table.
        column: The modality's.
        features: Per step.
    """

    items: StoredTable
    column: str
    features: int

    def counts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) how many steps each has; 1 for vectors."""
        return self.items.counts(self.column, rows) // self.features

    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(steps, features) floats, row after row."""
        return self.items.steps(self.column, rows, self.features)
