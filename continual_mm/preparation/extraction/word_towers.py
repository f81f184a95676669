"""Text as vectors of its words."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
from gensim.models import Word2Vec
from numpy.typing import NDArray

from continual_mm.definitions.modality import Kind
from continual_mm.preparation.extraction.manifest import Manifest
from continual_mm.preparation.extraction.towers import Features, Setting, Vectors, check_count
from continual_mm.preparation.formats.word_vectors import WordVectors, open_vectors, tokens
from continual_mm.system.seeds import seed_for

Mode = Literal["robust", "reference"]


@dataclass(frozen=True, slots=True)
class WordTable:
    """Vectors of a few words, in memory.

    Attributes:
        name: What they are.
        features: Size of each.
        table: By word.
        fingerprint: Of all vectors that these are some of.
    """

    name: str
    features: int
    table: Mapping[str, Features]
    fingerprint: str

    def __contains__(self, word: object) -> bool:
        return word in self.table

    def vector(self, word: str) -> Features:
        """(features,)."""
        return self.table[word]


def needed(vectors: Vectors, texts: Iterable[str]) -> WordTable:
    """The vectors of the words in some texts, few enough to send them to other processes."""
    written = {word for text in texts for word in tokens(text)}
    table = {
        word: np.asarray(vectors.vector(word), dtype=np.float32)
        for word in sorted(written | {word.lower() for word in written})
        if word in vectors
    }
    return WordTable(vectors.name, vectors.features, table, fingerprint=vectors.fingerprint)


class WordTower:
    """A vector for each word that has one.

    Args:
        vectors: Of the words.
        max_words: How many are kept, from the beginning on.
        mode: ``reference`` knows words only as they are written, as MCN does; ``robust`` tries the
            lower case of one that is unknown.
    """

    signal: Literal["text"] = "text"
    kind = Kind.TOKENS

    def __init__(self, vectors: Vectors, *, max_words: int = 20, mode: Mode = "robust") -> None:
        check_count("max_words", max_words)
        if mode not in ("robust", "reference"):
            raise ValueError(f"there is no mode {mode!r}: robust or reference")
        self._vectors = vectors
        self._longest = max_words
        self._mode = mode
        self.features = vectors.features
        self.description = f"word vectors: {vectors.name}"
        given: dict[str, Setting] = {"max_words": max_words, "mode": mode}
        self.settings: dict[str, Setting] = {"vectors": vectors.name, **given}

    def encode(self, text: str) -> Features | None:
        """(known words, features); None if no word is known."""
        words = tokens(text)
        if self._mode == "robust":
            words = [word if word in self._vectors else word.lower() for word in words]
        known = [word for word in words if word in self._vectors][: self._longest]
        if not known:
            return None
        return np.stack([np.asarray(self._vectors.vector(word), np.float32) for word in known])


_SHOWN = 12  # letters of a fingerprint


class FileVectors:
    """The vectors of a file.

    Args:
        name: Identifies them where a job is resumed.
        vectors: By word.

    Attributes:
        name: As given.
        features: Size of each.
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
        InputError: If it is missing, cut short or damaged.
    """
    found = open_vectors(path)
    name = f"{path.name}, {len(found.rows)} words, {found.fingerprint[:_SHOWN]}"
    return FileVectors(name, found)


def corpus_vectors(manifest: Manifest, *, features: int = 64, seed: int = 0) -> WordTable:
    """Skip-gram vectors (Mikolov et al. 2013) trained on the captions of the training clips.

    Their name does not depend on the captions, so that a job continues when some are corrected;
    their fingerprint does.

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
        workers=1,  # with more the order of the updates, and so the vectors, would vary
    )
    table = {word: model.wv[word] for word in model.wv.index_to_key}
    return WordTable(name, features, table, fingerprint=digest)
