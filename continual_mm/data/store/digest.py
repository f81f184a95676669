"""A fingerprint of a store that does not depend on how its tables are divided into shards."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from continual_mm.data.standardise import BLOCK_VALUES
from continual_mm.data.store.form import ModalityForm


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
