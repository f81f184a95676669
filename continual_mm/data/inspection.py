"""What is in a dataset: sizes, who lacks what, how large values are, what is there twice."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.columns import Column, blocks
from continual_mm.data.dataset import Dataset, Split
from continual_mm.data.inspected import Inspection, ModalityReport
from continual_mm.data.remarks import remarks
from continual_mm.data.repeats import GIGABYTES, Compared, compare, spread
from continual_mm.data.sizes import Totals

MOST = 5000
"""Items whose sizes are taken; of larger datasets every so many-th of each split."""


def inspect(dataset: Dataset, *, most: int = MOST, gigabytes: float = GIGABYTES) -> Inspection:
    """Look at a dataset as it is; load it with ``standardise=False``.

    Args:
        dataset: The items.
        most: Items whose sizes are taken, of each modality.
        gigabytes: Of values that are searched for repeats.

    Raises:
        RefusedError: If it has no items.
    """
    if not len(dataset):
        raise RefusedError(Complaint(f"dataset {dataset.card.name!r}", "has no items"))
    found = compare(dataset, gigabytes=gigabytes)
    reports = tuple(_report(dataset, one, most, found) for one in dataset.columns.values())
    having = np.all([column.present for column in dataset.columns.values()], axis=0)
    inspection = Inspection(
        dataset.card,
        min(most, len(dataset)),
        found.rows,
        reports,
        int(having.sum()),
        found.whole,
        *_groups(dataset),
        found.captions,
        found.classes,
    )
    return replace(inspection, remarks=(*dataset.notes, *remarks(inspection)))


def _report(dataset: Dataset, column: Column, most: int, found: Compared) -> ModalityReport:
    modality, present = column.modality, np.flatnonzero(column.present)
    rows = present[spread(dataset.split[present], most)]
    totals, lengths, start = Totals(modality.features), [np.empty(0, dtype=np.int64)], 0
    for steps, valid in blocks(column, rows):
        here = rows[start : start + len(steps)]
        totals.add(steps, valid, here, dataset.split[here].astype(np.int64))
        lengths.append(valid)
        start += len(steps)
    sizes = totals.sizes()
    place = sizes.furthest_row
    furthest = "" if place is None else str(dataset.ids[np.array([place])][0])
    return ModalityReport(
        modality,
        _per_split(dataset.split[present]),
        _lengths(np.concatenate(lengths)) if modality.kind.has_length else None,
        sizes,
        furthest,
        found.modalities[modality.name],
    )


def _lengths(valid: NDArray[np.int64]) -> tuple[int, int, int]:
    """Shortest, median and longest; zeros if there are none."""
    found = valid if len(valid) else np.zeros(1)
    return int(found.min()), int(np.median(found)), int(found.max())


def _per_split(split: NDArray[np.integer[Any]]) -> tuple[int, int, int]:
    training, validation, test = (int((split == each).sum()) for each in Split)
    return training, validation, test


def _groups(dataset: Dataset) -> tuple[int | None, int]:
    if dataset.group is None:
        return None, 0
    pairs = np.unique(np.stack([dataset.group, dataset.split]), axis=1)
    groups, splits = np.unique(pairs[0], return_counts=True)
    return len(groups), int((splits > 1).sum())
