"""What all judges share: which items they score, and how these are compared."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from continual_mm.data.dataset import Dataset, Split
from continual_mm.definitions.scenario import Protocol
from continual_mm.metrics.answers import Answers
from continual_mm.system.errors import InputError, Problem

Rows = NDArray[np.int64]
"""(n,) rows of a dataset, ascending."""
Similarity = Callable[[Tensor, Tensor], Tensor]
"""(q,) and (g,) dataset rows -> (q, g) similarities."""


class Judge(ABC):
    """Scores the queries of one protocol; made once, before training.

    Args:
        protocol: The definition.
        dataset: The items.
        place: What to call the protocol in problems.

    Attributes:
        protocol: The definition.
        dataset: The items.
        rows: The items that are embedded.
        queries: How many queries there are.
        expected: How many the published protocol has.

    Raises:
        InputError: If items that the protocol needs are missing.
    """

    rows: Rows
    queries: int
    expected: int

    def __init__(self, protocol: Protocol, dataset: Dataset, place: str) -> None:
        self.protocol = protocol
        self.dataset = dataset
        self.place = place

    @abstractmethod
    def answers(
        self, similarity: Similarity, *, reference: bool, listed: bool = False
    ) -> dict[str, Answers]:
        """Series -> the results of its queries.

        Args:
            similarity: Compares the query side of some items with the gallery side of others.
            reference: Whether to count as the published scripts do.
            listed: Whether a retrieval repeats their mistake of listing every tie.
        """

    def refuse(self, problem: str, remedy: str = "") -> InputError:
        """A problem about the protocol."""
        return InputError(Problem(self.place, problem, remedy))

    def having(self, modalities: Sequence[str]) -> NDArray[np.bool_]:
        """(items,) which test items have all of some modalities."""
        found: NDArray[np.bool_] = self.dataset.split == Split.TEST
        for name in modalities:
            found &= self.dataset.columns[name].present
        return found

    def names_and_items(self) -> tuple[Rows, Rows]:
        """Test items with the query side alone, such as names of classes, and the gallery.

        Raises:
            InputError: If there is none of either.
        """
        queries, gallery = self.having(self.protocol.query), self.having(self.protocol.gallery)
        names, items = np.flatnonzero(queries & ~gallery), np.flatnonzero(gallery)
        if not len(names):
            remedy = "add test items that have the query's modalities and lack the gallery's"
            raise self.refuse("no test item is a name: all queries are in the gallery", remedy)
        if not len(items):
            raise self.refuse(f"no test item has {' and '.join(self.protocol.gallery)}")
        return names, items


def tensor(rows: Rows) -> Tensor:
    """Rows as torch has them."""
    return torch.from_numpy(np.ascontiguousarray(rows))


def plain(values: Tensor) -> NDArray[np.float64]:
    """Numbers as numpy has them."""
    found: NDArray[np.float64] = values.double().cpu().numpy()
    return found
