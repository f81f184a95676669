"""Word vectors from a file, as towers for text take them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.published.vectors import WordVectors, open_vectors


class FileVectors:
    """The vectors of a file.

    Args:
        name: Tells vectors apart where a job goes on.
        vectors: By word.

    Attributes:
        name: As given.
        features: Numbers per word.
    """

    def __init__(self, name: str, vectors: WordVectors) -> None:
        self.name = name
        self.features = vectors.features
        self._vectors = vectors

    def __contains__(self, word: object) -> bool:
        return word in self._vectors.rows

    def vector(self, word: str) -> NDArray[np.float32]:
        """(features,) of a word that is there."""
        return np.array(self._vectors.values[self._vectors.rows[word]], dtype=np.float32)


def opened(path: Path) -> FileVectors:
    """Open a file of word vectors.

    Raises:
        RefusedError: If it is missing, cut short or damaged.
    """
    found = open_vectors(path)
    return FileVectors(f"{path.name}, {len(found.rows)} words", found)
