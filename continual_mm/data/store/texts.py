"""Texts that stay on the disk until they are asked for."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.store.ragged import steps_of
from continual_mm.data.store.table import StoredTable


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
