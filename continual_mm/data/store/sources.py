"""Where the steps of a store's modalities are: in the items, in a table of words, in recordings."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from continual_mm.data.statistics import BLOCK_VALUES, Moments, RunningStatistics
from continual_mm.data.store.form import DAMAGED, ModalityForm, StoreForm, TableName
from continual_mm.data.store.tables import Digest, StoredTable, schemas_of, stored_file
from continual_mm.system.errors import InputError

MOST_ROWS = 1 << 20  # items whose counts are in memory at once

MOST_WINDOWS = 1 << 18
"""Training items that are measured where items are windows.

They overlap, so that there may be a hundred times as many as there is data; the mean of so many is
wrong by about a five-hundredth of a deviation.
"""


class Source(Protocol):
    """Steps of some items, all of which have the modality."""

    def counts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) how many steps each has; 1 for vectors."""

    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(steps, features) floats, row after row."""


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """Steps that are a column of the items, with so many features each."""

    items: StoredTable
    column: str
    features: int

    def counts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) how many steps each has; 1 for vectors."""
        return self.items.counts(self.column, rows) // self.features

    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(steps, features) floats, row after row."""
        return self.items.read(self.column, rows, self.features)


@dataclass(frozen=True, eq=False)
class WordRows:
    """Steps that are looked up in a table of word vectors; the items hold its rows."""

    items: StoredTable
    form: ModalityForm
    store: Path
    dtype: str

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process maps the vectors for itself.
        return WordRows, (self.items, self.form, self.store, self.dtype)

    def counts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) how many words each has."""
        return self.items.counts(self.form.name, rows)

    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(words, features) floats, row after row."""
        # A damaged row may be negative, which would count from the end.
        words = self.items.read(self.form.name, rows)[:, 0].view(np.uint32)
        return np.asarray(self.vectors[words])

    @cached_property
    def vectors(self) -> NDArray[Any]:
        """(words, features), memory-mapped; an InputError if the file is not what it should be."""
        path = stored_file(self.store, word_file(self.form.name))
        try:
            found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError, SyntaxError, TypeError) as error:
            raise InputError.at(path, f"cannot be read ({error})", DAMAGED) from error
        shape = (self.form.words, self.form.modality.features)
        if found.shape != shape or found.dtype != self.dtype:
            problem = f"is {found.dtype} of shape {found.shape}, not {self.dtype} {shape}"
            raise InputError.at(path, problem, DAMAGED)
        return found


def word_file(modality: str) -> str:
    """Where in a store the word vectors of a modality are."""
    return f"{modality}.npy"


def add_words(digest: Digest, name: str, vectors: NDArray[np.floating]) -> None:
    """Take in the word vectors of a modality, a few megabytes at a time."""
    height = max(1, BLOCK_VALUES // vectors.shape[1])
    for start in range(0, len(vectors), height):
        digest.add_array(f"words {name}", vectors[start : start + height])


@dataclass(frozen=True, slots=True, eq=False)
class WindowSteps:
    """Windows of recordings: as they are, cut behind the longest time, or their largest values."""

    items: StoredTable
    recordings: StoredTable
    form: ModalityForm

    def bounds(
        self, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(n,) recordings, and (n, parts) first steps and how many follow."""
        recording, *bounds = self.form.columns
        begin, end = (
            self.items.read(bound, rows, len(self.form.parts)).astype(np.int64) for bound in bounds
        )
        return self.items.read(recording, rows)[:, 0], begin, end - begin

    def counts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) how many steps each has; 1 where windows are reduced to vectors."""
        if self.form.reduce:
            return np.ones_like(rows)
        return np.minimum(self.bounds(rows)[2][:, 0], self.form.shape[0])

    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(steps, features) floats, row after row."""
        recordings, begin, count = self.bounds(rows)
        if not self.form.reduce:
            ((part, features),) = self.form.parts.items()
            window = begin[:, 0], np.minimum(count[:, 0], self.form.shape[0])
            return self.recordings.read(part, recordings, features, window)
        pooled = [
            self._pooled(part, features, recordings, begin[:, k], count[:, k])
            for k, (part, features) in enumerate(self.form.parts.items())
        ]
        return np.concatenate(pooled, axis=1)

    def _pooled(
        self,
        part: str,
        features: int,
        recordings: NDArray[np.int64],
        begin: NDArray[np.int64],
        count: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        """(n, features) the largest values of one part, scaled to length 1."""
        found = np.zeros((len(recordings), features), dtype=np.float32)
        some = np.flatnonzero(count)
        for block in blocks_of(count[some] * features, BLOCK_VALUES):
            rows = some[block]
            window = begin[rows], count[rows]
            steps = self.recordings.read(part, recordings[rows], features, window)
            found[rows] = largest(torch.from_numpy(steps).float(), torch.from_numpy(count[rows]))
        length = np.linalg.norm(found, axis=1, keepdims=True)
        np.divide(found, length, out=found, where=length > 0)
        return found


def largest(steps: Tensor, count: Tensor) -> NDArray[np.float32]:
    """(windows, features) largest values of steps; 15 times as fast as ``np.maximum.reduceat``."""
    window = torch.repeat_interleave(torch.arange(len(count)), count)
    begun = steps[count.cumsum(0) - count]
    found = begun.scatter_reduce_(0, window[:, None].expand_as(steps), steps, "amax")
    values: NDArray[np.float32] = found.numpy()
    return values


class Tables:
    """The tables of a store, empty where it has none; no file is opened before it is needed."""

    def __init__(self, store: Path, form: StoreForm) -> None:
        schemas = schemas_of(form.columns, form.modalities, form.dtype)
        self.items, self.recordings, self.groups = (
            StoredTable(store, name, form.tables.get(name, ()), schemas[name])
            for name in get_args(TableName)
        )
        self.sources: dict[str, Source] = {}
        for one in form.modalities:
            if one.source == "values":
                self.sources[one.name] = Values(self.items, one.name, one.modality.features)
            elif one.source == "words":
                self.sources[one.name] = WordRows(self.items, one, store, form.dtype)
            else:
                self.sources[one.name] = WindowSteps(self.items, self.recordings, one)


def measured(tables: Tables, modality: ModalityForm) -> Moments | None:
    """Mean and deviation over the training items that have a modality; None if none has it."""
    training = tables.items.column("split") == 0
    rows = np.flatnonzero(training & tables.items.present(modality.columns[0]))
    if modality.source == "windows" and len(rows) > MOST_WINDOWS:
        rows = rows[np.arange(MOST_WINDOWS) * len(rows) // MOST_WINDOWS]
    source, features = tables.sources[modality.name], modality.modality.features
    statistics = RunningStatistics(features)
    for start in range(0, len(rows), MOST_ROWS):
        some = rows[start : start + MOST_ROWS]
        for block in blocks_of(source.counts(some) * features, BLOCK_VALUES):
            statistics.add(source.read(some[block]))
    return statistics.result()


def blocks_of(sizes: NDArray[np.int64], most: int) -> Iterator[slice]:
    """Slices of rows whose sizes sum up to at most ``most``, or single rows that exceed it."""
    ends, start = np.cumsum(sizes), 0
    while start < len(sizes):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield slice(start, stop)
        start = stop
