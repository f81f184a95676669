"""Where a stored modality's steps come from."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Source(Protocol):
    """Steps of some items, all of which have the modality."""

    def counts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) how many steps each has; 1 for vectors."""

    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(steps, features) floats, row after row."""
