"""What must hold row by row: unique ids, split values, lengths."""

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.findings import Findings, first_few
from continual_mm.modality import SPLITS

SPLIT_NUMBERS = "0 is training, 1 validation, 2 test"
"""What the split column says; the remedy where an item says another thing, or none says one."""


def check_ids(ids: NDArray[np.str_] | None, findings: Findings) -> None:
    """Complain about ids that occur twice; from here on, rows are named with their ids."""
    if ids is None:
        return
    findings.ids = ids
    _, first, counts = np.unique(ids, return_index=True, return_counts=True)
    twice = np.sort(first[counts > 1])
    if len(twice):
        named = [f"{str(ids[row])!r} (rows {_rows_with(ids, ids[row])})" for row in twice]
        what = "id occurs" if len(named) == 1 else "ids occur"
        findings.about(
            "ids", f"{len(named)} {what} more than once: {first_few(named)}", "ids must be unique"
        )


def check_split(
    split: NDArray[Any] | None,
    findings: Findings,
    *,
    needed: Collection[str] = SPLITS,
    remedy: str = SPLIT_NUMBERS,
) -> NDArray[np.int64]:
    """Complain about values that are no split, and about splits without items.

    Args:
        split: The column; None if there is none.
        findings: Takes the complaints.
        needed: Splits that must have an item; for items that only score, ``test`` is enough.
        remedy: What to do about one that has none.

    Returns:
        The split of each item; empty where there is no such column.
    """
    if split is None:
        return np.empty(0, dtype=np.int64)
    known = (split >= 0) & (split < len(SPLITS))
    findings.about_rows("split", "no such split", np.flatnonzero(~known), SPLIT_NUMBERS)
    checked: NDArray[np.int64] = split.astype(np.int64)
    check_counts(count_splits(checked), findings, needed=needed, remedy=remedy)
    return checked


def check_counts(
    counts: tuple[int, int, int],
    findings: Findings,
    *,
    needed: Collection[str] = SPLITS,
    remedy: str = SPLIT_NUMBERS,
) -> None:
    """Complain about splits without items.

    Args:
        counts: Items per split.
        findings: Takes the complaints.
        needed: Splits that must have an item.
        remedy: What to do about one that has none.
    """
    for meaning, items in zip(SPLITS, counts, strict=True):
        if items == 0 and meaning in needed:
            findings.about("split", f"there is no {meaning} item", remedy)


def check_lengths(
    column: str,
    lengths: NDArray[Any],
    present: NDArray[np.bool_],
    time: int,
    findings: Findings,
) -> None:
    """Complain about lengths outside 1..time in rows that have the modality."""
    wrong = present & ((lengths < 1) | (lengths > time))
    findings.about_rows(column, f"not within 1..{time}", np.flatnonzero(wrong))


def count_splits(split: NDArray[np.int64]) -> tuple[int, int, int]:
    """Items per split: training, validation, test."""
    training, validation, test = (int((split == value).sum()) for value in range(len(SPLITS)))
    return training, validation, test


def _rows_with(ids: NDArray[np.str_], name: np.str_) -> str:
    return first_few([str(row) for row in np.flatnonzero(ids == name)])
