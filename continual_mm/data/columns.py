"""What a dataset keeps of each modality: in memory, or wherever rows can be taken from.

torch is imported when rows are taken: items are checked without it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from math import prod
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from continual_mm.definitions.modality import Modality

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK_VALUES = 1 << 23  # values of items that are in memory at once where all are looked at: 32 MB


class Column(Protocol):
    """One modality of every item."""

    @property
    def modality(self) -> Modality:
        """Name, kind, and shape of one item."""

    @property
    def present(self) -> NDArray[np.bool_]:
        """(items,) whether an item has the modality."""

    @property
    def valid(self) -> NDArray[np.int64]:
        """(items,) steps that carry signal; 0 for an item that lacks the modality."""

    def take(self, rows: "Tensor") -> "tuple[Tensor, Tensor | None]":
        """Features of (n,) rows, all of which have the modality, and (n,) valid steps.

        They are (n, ...) float32, cut behind the longest; a vector has no steps, which are None.
        """


class Texts(Protocol):
    """A text for every item, in memory or read when it is asked for."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.str_]:
        """Those of some rows."""


@dataclass(frozen=True, slots=True, eq=False)
class MemoryColumn:
    """One modality of every item, in memory."""

    modality: Modality
    # (items, *modality.shape); zero in rows that lack the modality and in the padding after a
    # row's length.
    values: NDArray[np.float32]
    present: NDArray[np.bool_]  # (items,) whether an item has the modality
    # (items,) valid time steps, 1..time where present and 0 elsewhere; None for vectors.
    lengths: NDArray[np.int64] | None

    @property
    def steps(self) -> NDArray[np.float32]:
        """A view of the values as (items, time, features); a vector is one step."""
        return self.values.reshape(len(self.values), -1, self.modality.features)

    @property
    def valid(self) -> NDArray[np.int64]:
        """(items,) steps that carry signal; 0 for an item that lacks the modality."""
        return self.present.astype(np.int64) if self.lengths is None else self.lengths

    def take(self, rows: "Tensor") -> "tuple[Tensor, Tensor | None]":
        """Features of some rows, as :meth:`Column.take` says."""
        import torch  # noqa: PLC0415 - see above

        # NumPy copies rows twice as fast as torch, and without torch's threads, which would fight
        # over the cores with those of a step that is computed meanwhile.
        chosen = rows.numpy()
        if self.lengths is None:
            return torch.from_numpy(self.values[chosen]), None
        lengths = self.lengths[chosen]
        longest = int(lengths.max(initial=0))
        return torch.from_numpy(self.values[chosen, :longest]), torch.from_numpy(lengths)


def blocks(
    column: Column, rows: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """(n, time, features) and (n,) valid steps of items that have the modality, block by block."""
    height = max(1, _BLOCK_VALUES // prod(column.modality.shape))
    for start in range(0, len(rows), height):
        some = rows[start : start + height]
        if isinstance(column, MemoryColumn):
            yield column.steps[some], column.valid[some]
            continue
        import torch  # noqa: PLC0415 - see above

        values, lengths = column.take(torch.from_numpy(some))
        steps = values.numpy().reshape(len(values), -1, column.modality.features)
        yield steps, np.ones(len(steps), np.int64) if lengths is None else lengths.numpy()


def digests(steps: NDArray[np.float32], valid: NDArray[np.int64]) -> list[bytes]:
    """16 bytes for each item of (n, time, features), equal where all of its valid steps are."""
    # Both zeros are the same number.
    positive = steps + np.float32(0.0)
    return [
        blake2b(item[:length].tobytes(), digest_size=16).digest()
        for item, length in zip(positive, valid.tolist(), strict=True)
    ]


def digests_of(column: Column, rows: NDArray[np.int64]) -> list[bytes]:
    """:func:`digests` of some items, all of which have the modality."""
    return [each for block in blocks(column, rows) for each in digests(*block)]
