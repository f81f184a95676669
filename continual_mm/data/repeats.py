"""What is in a dataset more than once, found by a digest of every item."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.columns import Column, Texts, blocks, digests
from continual_mm.data.dataset import Dataset, Split

GIGABYTES = 4.0
"""Of values, as float32, that are read in search of repeats."""

MOST_COMPARED = 4_000_000
"""Items that are compared; sorting the digests of so many takes some 200 MB."""

_BYTES = 8  # of a digest
_TEXTS = 256  # read at once, since each takes as much as the longest
_MIX = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that multiplying by it loses nothing."""

Digests = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Repeats:
    """Values that several items have; nothing but zeros, and what is not finite, count as none.

    Attributes:
        compared: Items that were compared.
        different: Different values among them.
        repeated: Items whose values another item has as well.
        leaked: Validation and test items whose values are those of a training item.
        crossed: Test items whose values are those of a validation item.
    """

    compared: int
    different: int
    repeated: int
    leaked: int
    crossed: int

    @classmethod
    def among(cls, found: Digests, split: NDArray[np.integer[Any]]) -> "Repeats":
        """Count them.

        Args:
            found: (items,) equal for items that are equal.
            split: (items,) what each is for.
        """
        _, place, counts = np.unique(found, return_inverse=True, return_counts=True)
        in_training, in_validation = (
            np.isin(np.arange(len(counts)), place[split == each])
            for each in (Split.TRAIN, Split.VALIDATION)
        )
        return cls(
            len(found),
            len(counts),
            int((counts[place] > 1).sum()),
            int((in_training[place] & (split != Split.TRAIN)).sum()),
            int((in_validation[place] & (split == Split.TEST)).sum()),
        )


@dataclass(frozen=True, slots=True)
class Compared:
    """Everything that was found to be there more than once.

    Attributes:
        rows: Items of the dataset that were compared.
        modalities: By name, among the items that have the modality.
        whole: Among items that are the same in every modality, or lack the same.
        captions: Among the captions that are not empty; None where there are none.
        classes: Whether captions are names of classes: one for each label, and as many.
    """

    rows: int
    modalities: Mapping[str, Repeats]
    whole: Repeats
    captions: Repeats | None = None
    classes: bool = False


def compare(dataset: Dataset, *, gigabytes: float = GIGABYTES) -> Compared:
    """Compare all items with each other, as far as so many gigabytes of values go.

    Of each item 8 bytes are kept for every modality, so that two of four million that differ are
    taken for the same in one of two million datasets. Values are read a few megabytes at a time.

    Args:
        dataset: The items.
        gigabytes: Of values as float32, all modalities together; of larger datasets every so
            many-th item is compared, in each split.
    """
    rows = _rows(dataset, gigabytes)
    split = dataset.split[rows]
    whole = np.zeros(len(rows), np.uint64)
    shows = np.zeros(len(rows), np.bool_)
    modalities = {}
    for name, column in dataset.columns.items():
        has = column.present[rows]
        found, empty = _digests(column, rows[has])
        modalities[name] = Repeats.among(found[~empty], split[has][~empty])
        whole *= _MIX
        whole[has] += found
        shows[has] |= ~empty
    every = Repeats.among(whole[shows], split[shows])
    if dataset.text is None:
        return Compared(len(rows), modalities, every)
    texts, said = _of_texts(dataset.text, rows)
    label = None if dataset.label is None else dataset.label[rows][said]
    captions = Repeats.among(texts[said], split[said])
    return Compared(len(rows), modalities, every, captions, _are_classes(texts[said], label))


def spread(split: NDArray[np.integer[Any]], most: int) -> NDArray[np.int64]:
    """Up to so many rows, of every split its share, evenly spread over it."""
    if len(split) <= most:
        return np.arange(len(split))
    chosen = []
    for each in Split:
        rows = np.flatnonzero(split == each)
        count = min(len(rows), -(-most * len(rows) // len(split)))
        chosen.append(rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)])
    return np.sort(np.concatenate(chosen))


def _rows(dataset: Dataset, gigabytes: float) -> NDArray[np.int64]:
    columns = dataset.columns.values()
    size = 4 * sum(int(one.valid.sum()) * one.modality.features for one in columns)
    share = min(1.0, gigabytes * 1e9 / max(size, 1))
    return spread(dataset.split, min(MOST_COMPARED, max(1, int(share * len(dataset)))))


def _digests(column: Column, rows: NDArray[np.int64]) -> tuple[Digests, NDArray[np.bool_]]:
    """(rows,) a digest of each, and whether it shows nothing: only zeros, or what is not finite."""
    found, empty = np.empty(len(rows), np.uint64), np.empty(len(rows), np.bool_)
    start = 0
    for steps, valid in blocks(column, rows):
        here = slice(start, start := start + len(steps))
        found[here] = _numbers(digests(steps, valid))
        peaks = np.abs(steps).max(axis=(1, 2), initial=0.0)
        empty[here] = (peaks == 0) | ~np.isfinite(peaks)
    return found, empty


def _of_texts(texts: Texts, rows: NDArray[np.int64]) -> tuple[Digests, NDArray[np.bool_]]:
    """(rows,) a digest of each, and whether it says anything."""
    found, said = np.empty(len(rows), np.uint64), np.empty(len(rows), np.bool_)
    for start in range(0, len(rows), _TEXTS):
        block = texts[rows[start : start + _TEXTS]].tolist()
        here = slice(start, start + len(block))
        found[here] = _numbers(blake2b(text.encode()).digest() for text in block)
        said[here] = [bool(text.strip()) for text in block]
    return found, said


def _numbers(digests_of_items: Iterable[bytes]) -> Digests:
    first = b"".join(digest[:_BYTES] for digest in digests_of_items)
    return np.frombuffer(first, dtype=np.uint64)


def _are_classes(captions: Digests, label: NDArray[np.int64] | None) -> bool:
    if label is None or not len(label):
        return False
    both = np.stack([captions, label.view(np.uint64)])
    names, classes, pairs = (len(np.unique(each, axis=-1).T) for each in (*both, both))
    return names == classes == pairs < len(label)
