"""What Python callers hand over, brought into the columns of a feature pack."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from continual_mm.data.findings import Findings
from continual_mm.data.schema import ITEM_COLUMNS, split_ending

_SHUFFLE_SEED = 0


def gather(
    arrays: Mapping[str, ArrayLike],
    own: Mapping[str, Mapping[str, ArrayLike]],
    items: Mapping[str, ArrayLike | None],
    findings: Findings,
) -> dict[str, NDArray[Any]]:
    """Copy everything into numpy arrays under the names that a pack would use.

    Args:
        arrays: The modalities.
        own: By ending (``_kind``, ``_length``, ``_present``), then by modality.
        items: ``ids``, ``split`` and the like; None for what is not given. Missing ids are the row
            numbers, a missing split is the fixed shuffle of :func:`shuffled_split`.
        findings: Takes the complaints about what is no array.
    """
    reserved = [name for name in arrays if name in ITEM_COLUMNS or split_ending(name)]
    for name in reserved:
        findings.about(name, "is reserved and names no modality", "choose another name")
    given: dict[str, ArrayLike | None] = {
        **{name: values for name, values in arrays.items() if name not in reserved},
        **{name + end: values for end, by_name in own.items() for name, values in by_name.items()},
        **items,
    }
    made = {name: _array(name, values, findings) for name, values in given.items()}
    columns = {name: column for name, column in made.items() if column is not None}
    rows = next((len(columns[name]) for name in arrays if _has_rows(columns.get(name))), 0)
    if items["ids"] is None:
        columns["ids"] = np.arange(rows).astype(np.str_)
    if items["split"] is None:
        columns["split"] = shuffled_split(columns["ids"].size if "ids" in columns else rows)
    return columns


def shuffled_split(rows: int) -> NDArray[np.int64]:
    """Deal items into 80 % training, 10 % validation and 10 % test by a fixed permutation.

    >>> shuffled_split(5).tolist()
    [2, 0, 1, 0, 0]
    """
    # RandomState, because its stream is frozen for good; that of a Generator may change.
    order = np.random.RandomState(_SHUFFLE_SEED).permutation(rows)
    share = max(1, rows // 10)
    split = np.zeros(rows, dtype=np.int64)
    split[order[:share]] = 1
    split[order[share : 2 * share]] = 2
    return split


def hashed(columns: Mapping[str, NDArray[Any]]) -> str:
    """Give a fingerprint of names, dtypes, shapes and every value; their order does not count."""
    total = hashlib.sha256()
    for name in sorted(columns):
        column = columns[name]
        total.update(f"{name} {column.dtype.str} {column.shape}\n".encode())
        total.update(column.reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def _array(name: str, values: ArrayLike | None, findings: Findings) -> NDArray[Any] | None:
    if values is None:
        return None
    problem = "holds Python objects"
    try:
        column = np.asarray(values).copy()
        if name in ("ids", "text_raw"):
            column = _words(column)
        if not column.dtype.hasobject:
            return column
    except (TypeError, ValueError, RuntimeError) as error:
        problem = f"is no array ({error})"
    if odd := _odd_rows(values):
        remedy = "pad the rows to one shape and give their lengths"
        findings.about_rows(name, "ragged: another shape than most", odd, remedy)
    else:
        findings.about(name, problem, "numbers or strings are needed")
    return None


def _odd_rows(values: Any) -> list[int]:
    """Rows of a ragged array whose shape is not the most frequent one."""
    try:
        shapes = [np.shape(row) for row in values]
    except (TypeError, ValueError):
        return []
    usual = Counter(shapes).most_common(1)
    return [row for row, shape in enumerate(shapes) if shape != usual[0][0]]


def _words(column: NDArray[Any]) -> NDArray[Any]:
    """Make unicode of numbers, and of strings in an array of objects, as pandas keeps them."""
    if column.dtype.kind in "iu" or all(isinstance(word, str) for word in column.flat):
        return column.astype(np.str_)
    return column


def _has_rows(column: NDArray[Any] | None) -> bool:
    return column is not None and column.ndim > 0
