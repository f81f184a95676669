"""Vectors, and which of them have the largest inner products with a query."""

from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Index:
    """An exact index by inner product, of faiss where it is installed, else of numpy.

    Both give the same answers; with faiss they take less time and memory.

    Args:
        vectors: (n, D).
        faiss: Whether to use it; None uses it where it is installed.
    """

    def __init__(self, vectors: Floats, *, faiss: bool | None = None) -> None:
        self._vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        self._faiss = None
        if find_spec("faiss") is not None if faiss is None else faiss:
            from faiss import IndexFlatIP  # noqa: PLC0415 - few need it

            self._faiss = IndexFlatIP(self._vectors.shape[1])
            self._faiss.add(self._vectors)

    def __len__(self) -> int:
        return len(self._vectors)

    def search(self, queries: Floats, k: int) -> tuple[Floats, NDArray[np.int64]]:
        """(m, k) scores, descending, and places of the best k of each of (m, D) queries."""
        wanted = np.ascontiguousarray(queries, dtype=np.float32)
        k = min(k, len(self))
        if self._faiss is not None:
            scores, places = self._faiss.search(wanted, k)
            return scores, places
        every = wanted @ self._vectors.T
        places = np.argsort(-every, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(every, places, axis=1), places
