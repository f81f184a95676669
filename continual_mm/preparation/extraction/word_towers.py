"""Text as vectors of its words."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np

from continual_mm.definitions.modality import Kind
from continual_mm.preparation.extraction.manifest import Manifest
from continual_mm.preparation.extraction.towers import Features, Setting, check_count
from continual_mm.preparation.formats.caption_vectors import trained
from continual_mm.preparation.formats.word_vectors import (
    WordVectors,
    known_rows,
    open_vectors,
    tokens,
)
from continual_mm.system.seeds import seed_for

Mode = Literal["robust", "reference"]

_MOST_WORDS = 100_000  # of one clip
_SHOWN = 12  # letters of a fingerprint


@dataclass(frozen=True, slots=True)
class Vectors:
    """Word vectors and their name; a job continues only with vectors of the same name."""

    name: str
    words: WordVectors


def file_vectors(path: Path) -> Vectors:
    """Open a file of word vectors."""
    found = open_vectors(path)
    name = f"{path.name}, {len(found.rows)} words, {found.fingerprint[:_SHOWN]}"
    return Vectors(name, found)


def corpus_vectors(manifest: Manifest, *, features: int = 64, seed: int = 0) -> Vectors:
    """Skip-gram vectors (Mikolov et al. 2013) trained on the captions of the training clips alone.

    The name does not depend on the captions, so that a job continues when some are corrected; the
    fingerprint does. The same seed and captions give the same bits.
    """
    captions = [clip.caption or "" for clip in manifest.clips if clip.split == 0]
    sentences = [tokens(caption) for caption in captions if caption]
    digest = sha256("\n".join(map(" ".join, sentences)).encode()).hexdigest()
    name = f"{features} numbers per word, trained on the captions with seed {seed}"
    if not any(sentences):
        return Vectors(name, WordVectors({}, np.empty((0, features), np.float32), digest))
    found = trained(
        filter(None, captions), features=features, seed=seed_for(seed, "word vectors"), sample=0
    )
    values = np.asarray(found.vectors, dtype=np.float32)
    return Vectors(name, WordVectors(found.key_to_index, values, digest))


def needed(vectors: Vectors, texts: Iterable[str]) -> Vectors:
    """The vectors of the words in some texts, few enough to send, with the fingerprint of all."""
    words = vectors.words
    written = {word for text in texts for word in tokens(text)}
    known = sorted((written | {word.lower() for word in written}) & words.rows.keys())
    chosen = np.array([words.rows[word] for word in known], dtype=np.int64)
    rows = {word: row for row, word in enumerate(known)}
    values = np.array(words.values[chosen], dtype=np.float32)
    return replace(vectors, words=WordVectors(rows, values, words.fingerprint))


class WordTower:
    """A vector for each of the first ``max_words`` words that :func:`known_rows` finds."""

    signal: Literal["text"] = "text"
    kind = Kind.TOKENS

    def __init__(self, vectors: Vectors, *, max_words: int = 20, mode: Mode = "robust") -> None:
        check_count("max_words", max_words, most=_MOST_WORDS)
        if mode not in ("robust", "reference"):
            raise ValueError(f"there is no mode {mode!r}: robust or reference")
        self._words, self._longest, self._mode = vectors.words, max_words, mode
        self.features = vectors.words.features
        self.description = f"word vectors: {vectors.name}"
        given: dict[str, Setting] = {"max_words": max_words, "mode": mode}
        self.settings: dict[str, Setting] = {"vectors": vectors.name, **given}

    def encode(self, text: str) -> Features | None:
        """(known words, features); None if no word is known."""
        known = known_rows(text, self._words.rows, max_words=self._longest, mode=self._mode)
        return np.array(self._words.values[known], dtype=np.float32) if known else None
