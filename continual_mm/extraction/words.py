"""Text as vectors of its words."""

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np

from continual_mm.data.published.words import tokens
from continual_mm.extraction.tower import Features, Setting, Vectors
from continual_mm.modality import Kind

Mode = Literal["robust", "reference"]


class WordTable:
    """Vectors of a few words, in memory.

    Args:
        name: What they are.
        features: Numbers of each.
        table: By word.
        fingerprint: Of all vectors that these are some of.
    """

    def __init__(
        self, name: str, features: int, table: Mapping[str, Features], *, fingerprint: str
    ) -> None:
        self.name = name
        self.features = features
        self.fingerprint = fingerprint
        self._table = dict(table)

    def __contains__(self, word: object) -> bool:
        return word in self._table

    def vector(self, word: str) -> Features:
        """(features,)."""
        return self._table[word]


def needed(vectors: Vectors, texts: Iterable[str]) -> WordTable:
    """The few of many vectors that some texts need; they travel to other processes."""
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
        if not isinstance(max_words, int) or max_words < 1:
            raise ValueError(f"max_words {max_words} is not at least 1")
        if mode not in ("robust", "reference"):
            raise ValueError(f"there is no mode {mode!r}: robust or reference")
        self._vectors = vectors
        self._most = max_words
        self._mode = mode
        self.features = vectors.features
        self.told = f"word vectors: {vectors.name}"
        given: dict[str, Setting] = {"max_words": max_words, "mode": mode}
        self.settings: dict[str, Setting] = {"vectors": vectors.name, **given}

    def describe(self, text: str) -> Features | None:
        """(known words, features); None if no word is known."""
        words = tokens(text)
        if self._mode == "robust":
            words = [word if word in self._vectors else word.lower() for word in words]
        known = [word for word in words if word in self._vectors][: self._most]
        if not known:
            return None
        return np.stack([np.asarray(self._vectors.vector(word), np.float32) for word in known])
