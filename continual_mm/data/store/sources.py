"""Where a stored modality's steps come from; first of all, from the items themselves."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.store.table import StoredTable


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
