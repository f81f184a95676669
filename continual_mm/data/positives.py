"""Which test items cannot be told apart by a query, and so answer it equally well."""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.columns import Texts, blocks, digests
from continual_mm.data.dataset import Dataset

_TEXTS = 256
"""Captions that are in memory at once."""


def query_groups(
    dataset: Dataset,
    modality: str,
    rows: NDArray[np.int64],
    *,
    positives: Literal["paired", "label", "duplicates"],
) -> NDArray[np.int64] | None:
    """(n,) a number per row, equal for rows that are correct answers of one another.

    Args:
        dataset: The items.
        modality: The query's modality.
        rows: (n,) items that are both queries and gallery.
        positives: ``label`` groups by class, ``duplicates`` by what the query shows: the caption
            where the modality is ``text`` and captions are known, else the features themselves.

    Returns:
        None for ``paired``: every item answers itself only.

    Raises:
        ValueError: If labels are asked for and there are none.
    """
    if positives == "paired":
        return None
    if positives == "label":
        if dataset.label is None:
            raise ValueError(f"dataset '{dataset.card.name}' has no labels")
        return np.unique(dataset.label[rows], return_inverse=True)[1].astype(np.int64)
    if modality == "text" and dataset.text is not None:
        shown = list(_captions(dataset.text, rows))
    else:
        column = dataset.columns[modality]
        shown = [one for block in blocks(column, rows) for one in digests(*block)]
    return np.unique(np.array(shown, np.bytes_), return_inverse=True)[1].astype(np.int64)


def _captions(texts: Texts, rows: NDArray[np.int64]) -> Iterator[bytes]:
    """16 bytes for each caption; in an array of all, each would be as long as the longest."""
    for start in range(0, len(rows), _TEXTS):
        some = texts[rows[start : start + _TEXTS]].tolist()
        written = (text.encode("utf-8", "surrogatepass") for text in some)
        yield from (blake2b(text, digest_size=16).digest() for text in written)
