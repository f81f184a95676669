"""What is in a dataset: sizes, who lacks what, how large values are, what is there twice."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.columns import Column, Texts, blocks, digests
from continual_mm.data.dataset import Dataset, Split
from continual_mm.data.standardise import CONSTANT
from continual_mm.modality import SPLITS, DatasetCard, Modality

MOST = 5000
"""Items that are looked at; of larger datasets every so many-th of each split."""

_TEXTS = 256  # read at once

FAR = 100.0
"""Times that the values of one modality may be larger than another's before it is told."""


@dataclass(frozen=True, slots=True)
class ModalityReport:
    """One modality of the items that were looked at; sizes are those of the file, not standardised.

    Attributes:
        modality: Name, kind of signal and shape.
        present: Items of the whole dataset that have it: training, validation, test.
        lengths: Shortest, median and longest valid time steps; None for a vector.
        smallest: Of all values.
        largest: Of all values.
        rms: Root mean square of all values.
        norm: Median over items of the mean Euclidean length of their time steps.
        constant: Features that never change.
        zero: Items of which every value is 0.
        repeated: Items whose values are those of another item.
        leaked: Validation and test items whose values are those of a training item.
        broken: Items with values that are not finite, which count for none of the sizes.
    """

    modality: Modality
    present: tuple[int, int, int]
    lengths: tuple[int, int, int] | None
    smallest: float
    largest: float
    rms: float
    norm: float
    constant: int
    zero: int
    repeated: int
    leaked: int
    broken: int


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is in a dataset.

    Attributes:
        card: Names, kinds, sizes.
        looked_at: Items whose values were read.
        modalities: One report each, in the dataset's order.
        complete: Items of the whole dataset that have every modality.
        groups: Groups (long videos, speakers); None where the dataset has none.
        straddling: Groups with items in more than one split.
        captions: Different captions among those looked at; None where there are none.
        remarks: What deserves a thought before training, in sentences.
    """

    card: DatasetCard
    looked_at: int
    modalities: tuple[ModalityReport, ...]
    complete: int
    groups: int | None
    straddling: int
    captions: int | None
    remarks: tuple[str, ...]


def inspect(dataset: Dataset, *, most: int = MOST) -> Inspection:
    """Look at a dataset as it is; load it with ``standardise=False``.

    Args:
        dataset: The items.
        most: Items whose values are read, of each modality.
    """
    rows = _spread(dataset.split, most)
    reports = tuple(_report(dataset, column, most) for column in dataset.columns.values())
    having = np.all([column.present for column in dataset.columns.values()], axis=0)
    groups, straddling = _groups(dataset)
    texts = None if dataset.text is None else _different(dataset.text, rows)
    return Inspection(
        dataset.card,
        len(rows),
        reports,
        int(having.sum()),
        groups,
        straddling,
        texts,
        (*dataset.notes, *_remarks(dataset.card, reports, straddling)),
    )


def _spread(split: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Up to so many rows, of every split its share, evenly spread over it."""
    if len(split) <= most:
        return np.arange(len(split))
    chosen = []
    for each in Split:
        rows = np.flatnonzero(split == each)
        count = min(len(rows), -(-most * len(rows) // len(split)))
        chosen.append(rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)])
    return np.sort(np.concatenate(chosen))


class _Totals:
    """What is gathered of one modality, block by block."""

    def __init__(self, features: int) -> None:
        self.low = np.full(features, np.inf)
        self.high = np.full(features, -np.inf)
        self.squares, self.values = 0.0, 0
        self.norms: list[NDArray[np.float64]] = []
        self.zero = self.broken = 0
        self.digests: list[bytes] = []

    def add(self, steps: NDArray[np.float32], valid: NDArray[np.int64]) -> None:
        """Take a block: (n, time, features), zero behind the valid steps, and (n,) valid steps."""
        self.digests += digests(steps, valid)
        finite = np.isfinite(steps).all(axis=(1, 2))
        if not finite.all():
            self.broken += int((~finite).sum())
            steps, valid = steps[finite], valid[finite]
        if len(steps):
            self._measure(steps, valid)

    def sizes(self) -> tuple[float, float, float, float, int]:
        """Smallest and largest value, root mean square, norm, constant features; zeros of none."""
        if not self.values:
            return 0.0, 0.0, 0.0, 0.0, 0
        # As for standardising: less than rounding leaves of a spread is none.
        flat = self.high - self.low <= CONSTANT * np.maximum(abs(self.high), abs(self.low))
        rms, norm = np.sqrt(self.squares / self.values), np.median(np.concatenate(self.norms))
        low, high = float(self.low.min()), float(self.high.max())
        return low, high, float(rms), float(norm), int(flat.sum())

    def _measure(self, steps: NDArray[np.float32], valid: NDArray[np.int64]) -> None:
        shown = np.arange(steps.shape[1]) < valid[:, None]
        real = steps[shown].astype(np.float64)
        self.low = np.minimum(self.low, real.min(axis=0))
        self.high = np.maximum(self.high, real.max(axis=0))
        self.squares += float((real**2).sum())
        self.values += real.size
        lengths = np.zeros(shown.shape)
        lengths[shown] = np.linalg.norm(real, axis=1)
        self.norms.append(lengths.sum(axis=1) / valid)
        self.zero += int((~steps.any(axis=(1, 2))).sum())


def _report(dataset: Dataset, column: Column, most: int) -> ModalityReport:
    modality, present = column.modality, np.flatnonzero(column.present)
    rows = present[_spread(dataset.split[present], most)]
    totals, lengths = _Totals(modality.features), [np.empty(0, dtype=np.int64)]
    for steps, valid in blocks(column, rows):
        totals.add(steps, valid)
        lengths.append(valid)
    repeated, leaked = _twice(totals.digests, dataset.split[rows])
    smallest, largest, rms, norm, constant = totals.sizes()
    return ModalityReport(
        modality,
        _per_split(dataset.split[present]),
        _lengths(np.concatenate(lengths)) if modality.kind.has_length else None,
        smallest,
        largest,
        rms,
        norm,
        constant,
        totals.zero,
        repeated,
        leaked,
        totals.broken,
    )


def _lengths(valid: NDArray[np.int64]) -> tuple[int, int, int]:
    """Shortest, median and longest; zeros if there are none."""
    found = valid if len(valid) else np.zeros(1)
    return int(found.min()), int(np.median(found)), int(found.max())


def _different(texts: Texts, rows: NDArray[np.int64]) -> int:
    """How many texts there are; a few at once, since each takes as much as the longest."""
    blocks_of_rows = (rows[start : start + _TEXTS] for start in range(0, len(rows), _TEXTS))
    return len({text for block in blocks_of_rows for text in texts[block].tolist()})


def _twice(digests: list[bytes], split: NDArray[np.int64]) -> tuple[int, int]:
    """Items that are there more than once, and held-out ones that are in the training split."""
    _, place, counts = np.unique(digests, return_inverse=True, return_counts=True)
    training = np.zeros(len(counts), dtype=np.bool_)
    training[place[split == Split.TRAIN]] = True
    leaked = training[place] & (split != Split.TRAIN)
    return int((counts[place] > 1).sum()), int(leaked.sum())


def _per_split(split: NDArray[np.int64]) -> tuple[int, int, int]:
    training, validation, test = (int((split == each).sum()) for each in Split)
    return training, validation, test


def _groups(dataset: Dataset) -> tuple[int | None, int]:
    if dataset.group is None:
        return None, 0
    pairs = np.unique(np.stack([dataset.group, dataset.split]), axis=1)
    groups, splits = np.unique(pairs[0], return_counts=True)
    return len(groups), int((splits > 1).sum())


def _remarks(
    card: DatasetCard, reports: tuple[ModalityReport, ...], straddling: int
) -> Iterator[str]:
    empty = [split for split, items in zip(SPLITS, card.items, strict=True) if not items]
    yield from (f"there is no {split} item" for split in empty)
    sized = sorted((one for one in reports if one.rms), key=lambda one: one.rms)
    if sized and sized[-1].rms > FAR * sized[0].rms:
        small, large = sized[0], sized[-1]
        yield (
            f"values of {large.modality.name} are {large.rms / small.rms:,.0f} times as large as"
            f" those of {small.modality.name} (root mean square {large.rms:.3g} and"
            f" {small.rms:.3g}): keep standardise = true, or one of them has no say"
        )
    for one in reports:
        yield from _remarks_on(one, empty)
    if straddling > 1:
        yield f"{straddling:,} groups have items in more than one split: scores may be too good"


def _remarks_on(one: ModalityReport, empty: list[str]) -> Iterator[str]:
    name = one.modality.name
    for split, count in zip(SPLITS, one.present, strict=True):
        if not count and split not in empty:
            yield f"no {split} item has {name}"
    if one.broken:
        yield f"{one.broken:,} items have values of {name} that are not finite: it is damaged"
    if one.constant:
        yield f"{one.constant} of {one.modality.features} features of {name} never change"
    if one.zero:
        yield f"{one.zero:,} items have nothing but zeros as {name}: is that a missing {name}?"
    if one.leaked:
        yield f"{one.leaked:,} validation or test items have the {name} of a training item"
