"""What a store's fingerprint is made of."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.standardise import BLOCK_VALUES
from continual_mm.data.store.digest import Digest
from continual_mm.data.store.form import ModalityForm


def fingerprint_of(digest: Digest, modalities: Iterable[ModalityForm]) -> str:
    """The fingerprint of tables and words, and of what they mean."""
    return digest.value(
        *(
            f"{one.name} {one.kind} {one.shape} {one.source} {dict(one.parts)} {one.reduce}"
            for one in modalities
        )
    )


def add_words(digest: Digest, name: str, vectors: NDArray[np.floating]) -> None:
    """Take in the word vectors of a modality, a few megabytes at a time."""
    height = max(1, BLOCK_VALUES // vectors.shape[1])
    for start in range(0, len(vectors), height):
        digest.add_array(f"words {name}", vectors[start : start + height])
