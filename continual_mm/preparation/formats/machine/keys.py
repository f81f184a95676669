"""What a pickle may have as keys of a dict and elements of a set: nothing that hashes alike."""

from collections.abc import Iterable

import numpy as np

from continual_mm.preparation.formats.machine.fault import FaultError
from continual_mm.preparation.formats.machine.notes import Name, Unfinished

_KEYS = (str, float, bytes, type(None), np.integer, np.character, np.bool_)
_KEY_BITS = 64
"""Of numbers as keys; of larger ones, as of complex ones, any number hash alike."""

_PART_BITS = 24
"""Of whole numbers in pairs that are keys."""


def elements(values: Iterable[object]) -> Iterable[object]:
    """Pass values on that may be elements of a set or keys of a dict.

    Raises:
        FaultError: At the first that is no scalar and no pair of texts or small numbers.
    """
    for value in values:
        if not _is_key(value):
            raise FaultError(
                f"has a {kind(value)} as the key of a dict or element of a set",
                "it was made to mislead; where the file is yours, write it with keys of text",
            )
        yield value


def _is_key(value: object) -> bool:
    """Whether so few others hash like it that a dict of n takes some n steps, not n * n.

    A few hundred numbers of 64 bits share a hash, and a few texts and bytes.
    """
    if isinstance(value, tuple):
        return len(value) <= 2 and all(_is_part(part) for part in value)
    if isinstance(value, int):
        return value.bit_length() <= _KEY_BITS
    if isinstance(value, np.floating):
        return value.itemsize * 8 <= _KEY_BITS  # wider ones all hash like infinity
    return isinstance(value, _KEYS)


def _is_part(value: object) -> bool:
    """Whether few tuples of two such parts hash alike.

    Of longer tuples any number do: each part has another one like it, as -1 has -2 and "a" b"a".
    Pairs of whole numbers of 24 bits, save -1 and -2, all have hashes of their own.
    """
    if isinstance(value, int):
        return value.bit_length() <= _PART_BITS
    return isinstance(value, str | bytes | None)


def kind(value: object) -> str:
    """What a value is called in a problem."""
    return value.text if isinstance(value, Name | Unfinished) else type(value).__name__
