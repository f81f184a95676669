"""Where vectors of words are from: a file, or the captions at hand. Imports gensim."""

from hashlib import sha256
from pathlib import Path

import numpy as np
from gensim.models import Word2Vec
from numpy.typing import NDArray

from continual_mm.data.published.vectors import WordVectors, open_vectors
from continual_mm.data.published.words import tokens
from continual_mm.dice import seed_for
from continual_mm.extraction.clips import Manifest
from continual_mm.extraction.words import WordTable

_SHOWN = 12  # letters of a fingerprint


class FileVectors:
    """The vectors of a file.

    Args:
        name: Tells vectors apart where a job goes on.
        vectors: By word.

    Attributes:
        name: As given.
        features: Numbers per word.
        fingerprint: Of all vectors.
    """

    def __init__(self, name: str, vectors: WordVectors) -> None:
        self.name = name
        self.features = vectors.features
        self.fingerprint = vectors.fingerprint
        self._vectors = vectors

    def __contains__(self, word: object) -> bool:
        return word in self._vectors.rows

    def vector(self, word: str) -> NDArray[np.float32]:
        """(features,) of a word that is there."""
        return np.array(self._vectors.values[self._vectors.rows[word]], dtype=np.float32)


def file_vectors(path: Path) -> FileVectors:
    """Open a file of word vectors.

    Raises:
        RefusedError: If it is missing, cut short or damaged.
    """
    found = open_vectors(path)
    name = f"{path.name}, {len(found.rows)} words, {found.fingerprint[:_SHOWN]}"
    return FileVectors(name, found)


def corpus_vectors(manifest: Manifest, *, features: int = 64, seed: int = 0) -> WordTable:
    """Skip-gram vectors (Mikolov et al. 2013) trained on the captions of the training clips.

    Their name is the same whatever the captions are, so that a job goes on when some are corrected;
    their fingerprint is not.

    Args:
        manifest: Whose captions. Words of validation and test clips alone have no vector.
        features: Numbers of each.
        seed: The same seed and captions give the same bits.
    """
    captions = [clip.caption for clip in manifest.clips if clip.split == 0]
    sentences = [tokens(caption) for caption in captions if caption]
    digest = sha256("\n".join(map(" ".join, sentences)).encode()).hexdigest()
    name = f"{features} numbers per word, trained on the captions with seed {seed}"
    if not any(sentences):
        return WordTable(name, features, {}, fingerprint=digest)
    model = Word2Vec(
        sentences,
        vector_size=features,
        window=5,
        min_count=1,
        sg=1,
        negative=10,
        sample=0,
        epochs=10,
        seed=seed_for(seed, "word vectors") % 2**32,
        workers=1,  # more would make the order of the updates, and so the vectors, a matter of luck
    )
    table = {word: model.wv[word] for word in model.wv.index_to_key}
    return WordTable(name, features, table, fingerprint=digest)
