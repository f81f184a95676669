"""Words that are looked up in a table of vectors, which lies beside a store's shards."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from continual_mm.data.findings import FaultError
from continual_mm.data.statistics import BLOCK_VALUES
from continual_mm.data.store.form import Words
from continual_mm.data.store.records import Faults, sound_values
from continual_mm.data.store.shards import Digest, add_words
from continual_mm.data.store.table import StoredTable
from continual_mm.system.errors import InputError, Problem


def word_file(modality: str) -> str:
    """Where in a store the word vectors of a modality are."""
    return f"{modality}.npy"


def write_words(folder: Path, words: Words, dtype: str, digest: Digest, faults: Faults) -> None:
    """Write the vectors of a modality, a few megabytes at a time.

    Args:
        folder: The store.
        words: The modality and its vectors.
        dtype: That they get.
        digest: Takes them in.
        faults: Takes the problem if they are no finite vectors of the modality.
    """
    name, vectors, features = words.modality.name, words.vectors, words.modality.features
    if vectors.ndim != 2 or vectors.shape[1] != features or vectors.dtype.kind != "f":
        problem = f"word vectors of {name!r} are {vectors.dtype} of shape {vectors.shape}"
        faults.about_store(problem, f"give floats of shape (words, {features})")
        return
    kept = open_memmap(folder / word_file(name), "w+", np.dtype(dtype), (words.count, features))
    height = max(1, BLOCK_VALUES // features)
    try:
        for start in range(0, len(vectors), height):
            rows = slice(start, min(start + height, len(vectors)))
            kept[rows] = sound_values(name, np.asarray(vectors[rows]), dtype)
    except FaultError as fault:
        faults.about_store(f"word vectors of {name!r}: {fault.problem}", fault.remedy)
    kept.flush()
    add_words(digest, name, kept)


class WordTable:
    """A memory-mapped table of word vectors; another process opens it for itself.

    Args:
        path: An .npy file.
        shape: (words, features) that it should have.
        dtype: That it should have.
    """

    def __init__(self, path: Path, shape: tuple[int, int], dtype: str) -> None:
        self._path = path
        self._shape = shape
        self._dtype = dtype

    def __reduce__(self) -> tuple[Any, ...]:
        return WordTable, (self._path, self._shape, self._dtype)

    @cached_property
    def vectors(self) -> NDArray[Any]:
        """(words, features).

        Raises:
            InputError: If the file is not what it should be.
        """
        remedy = "the store is damaged: write it anew, or copy it whole"
        try:
            if self._path.resolve(strict=True) != self._path.parent.resolve() / self._path.name:
                raise InputError(Problem(str(self._path), "leads out of the store", remedy))
            found: NDArray[Any] = np.load(self._path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError, SyntaxError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            problem = f"cannot be read ({error})"
            raise InputError(Problem(str(self._path), problem, remedy)) from error
        if found.shape != self._shape or found.dtype != self._dtype:
            problem = f"is {found.dtype} of shape {found.shape}, not {self._dtype} {self._shape}"
            raise InputError(Problem(str(self._path), problem, remedy))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class WordRows:
    """A column of the items that holds rows of a table.

    Attributes:
        items: The table of items.
        column: The modality's.
        words: The table of vectors.
    """

    items: StoredTable
    column: str
    words: WordTable

    def counts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) how many words each has."""
        return self.items.counts(self.column, rows)

    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(words, features) floats, row after row."""
        words = self.items.steps(self.column, rows, 1)[:, 0]
        # A damaged row may be negative, which would count from the end.
        found: NDArray[Any] = self.words.vectors[words.view(np.uint32)]
        return np.asarray(found)
