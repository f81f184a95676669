"""What tells word vectors from others: a digest of the words and their numbers."""

from hashlib import blake2b

import numpy as np

from continual_mm.data.published.vectors import WordVectors

_BLOCK_VALUES = 1 << 22


def digest_of(vectors: WordVectors) -> str:
    """A digest of words and vectors, the same whichever form of file they were read from.

    It reads the whole table once, a few megabytes at a time: seconds for GoogleNews' 3.6 GB.
    """
    digest = blake2b(digest_size=16, person=b"word vectors")
    words = sorted(vectors.rows, key=vectors.rows.__getitem__)
    digest.update(f"{vectors.values.shape}\n".encode())
    for word in words:
        digest.update(word.encode("utf-8", "surrogatepass") + b"\n")
    height = max(1, _BLOCK_VALUES // max(vectors.features, 1))
    for start in range(0, len(vectors.values), height):
        block = np.ascontiguousarray(vectors.values[start : start + height], dtype="<f4")
        digest.update(block.view(np.uint8).data)
    return digest.hexdigest()
