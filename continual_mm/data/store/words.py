"""Writes the tables of word vectors that lie beside a store's shards."""

from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from continual_mm.data.standardise import BLOCK_VALUES
from continual_mm.data.store.checks import FaultError, sound_values
from continual_mm.data.store.digest import Digest
from continual_mm.data.store.faults import Faults
from continual_mm.data.store.fingerprint import add_words
from continual_mm.data.store.layout import Words
from continual_mm.data.store.opening import word_file


def write_words(folder: Path, words: Words, dtype: str, digest: Digest, faults: Faults) -> None:
    """Write the vectors of a modality, a few megabytes at a time.

    Args:
        folder: The store.
        words: The modality and its vectors.
        dtype: That they get.
        digest: Takes them in.
        faults: Takes the complaint if they are no finite vectors of the modality.
    """
    name, vectors, features = words.modality.name, words.vectors, words.modality.features
    if vectors.ndim != 2 or vectors.shape[1] != features or vectors.dtype.kind != "f":
        problem = f"word vectors of {name!r} are {vectors.dtype} of shape {vectors.shape}"
        faults.about_store(problem, f"give floats of shape (words, {features})")
        return
    kept = open_memmap(folder / word_file(name), "w+", np.dtype(dtype), (words.count, features))
    height = max(1, BLOCK_VALUES // features)
    try:
        for start in range(0, len(vectors), height):
            rows = slice(start, min(start + height, len(vectors)))
            kept[rows] = sound_values(name, np.asarray(vectors[rows]), dtype)
    except FaultError as fault:
        faults.about_store(f"word vectors of {name!r}: {fault.problem}", fault.remedy)
    kept.flush()
    add_words(digest, name, kept)
