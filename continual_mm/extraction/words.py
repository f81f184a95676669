"""Text as vectors of its words: given ones, or such as are trained on the captions at hand."""

import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Literal

import numpy as np
from gensim.models import Word2Vec

from continual_mm.dice import seed_for
from continual_mm.extraction.clips import Manifest
from continual_mm.extraction.tower import Features, Setting, Vectors
from continual_mm.modality import Kind

_WORD = re.compile(r"[\w']+")


class WordTable:
    """Vectors of a few words, in memory.

    Args:
        name: What they are.
        features: Numbers of each.
        table: By word.
    """

    def __init__(self, name: str, features: int, table: Mapping[str, Features]) -> None:
        self.name = name
        self.features = features
        self._table = dict(table)

    def __contains__(self, word: object) -> bool:
        return word in self._table

    def vector(self, word: str) -> Features:
        """(features,)."""
        return self._table[word]


def words_of(text: str) -> list[str]:
    """The words of a text as MCN takes them: case is kept, and so is every word.

    >>> words_of("don't stop, it's 20°C—OK_ay")
    ["don't", 'stop', "it's", '20', 'C', 'OK_ay']
    """
    return _WORD.findall(text)


def needed(vectors: Vectors, texts: Iterable[str]) -> WordTable:
    """The few of many vectors that some texts need; they travel to other processes."""
    vocabulary = {word for text in texts for word in words_of(text)}
    table = {
        word: np.asarray(vectors.vector(word), dtype=np.float32)
        for word in sorted(vocabulary)
        if word in vectors
    }
    return WordTable(vectors.name, vectors.features, table)


def corpus_vectors(manifest: Manifest, *, features: int = 64, seed: int = 0) -> WordTable:
    """Skip-gram vectors (Mikolov et al. 2013) trained on the captions of the training clips.

    Args:
        manifest: Whose captions. Words of validation and test clips alone have no vector.
        features: Numbers of each.
        seed: The same seed and captions give the same bits.
    """
    captions = [clip.caption for clip in manifest.clips if clip.split == 0]
    sentences = [words_of(caption) for caption in captions if caption]
    digest = sha256("\n".join(map(" ".join, sentences)).encode()).hexdigest()[:12]
    name = f"{features} numbers per word, trained on captions {digest} with seed {seed}"
    if not any(sentences):
        return WordTable(name, features, {})
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
    return WordTable(name, features, {word: model.wv[word] for word in model.wv.index_to_key})


class WordTower:
    """A vector for each word that has one.

    Args:
        vectors: Of the words.
        max_words: How many are kept, from the beginning on.
    """

    signal: Literal["text"] = "text"
    kind = Kind.TOKENS

    def __init__(self, vectors: Vectors, *, max_words: int = 20) -> None:
        if max_words < 1:
            raise ValueError(f"max_words {max_words} is not at least 1")
        self._vectors = vectors
        self._most = max_words
        self.features = vectors.features
        self.told = f"word vectors: {vectors.name}"
        self.settings: dict[str, Setting] = {"vectors": vectors.name, "max_words": max_words}

    def describe(self, text: str) -> Features | None:
        """(known words, features); None if no word is known."""
        known = [word for word in words_of(text) if word in self._vectors][: self._most]
        if not known:
            return None
        return np.stack([np.asarray(self._vectors.vector(word), np.float32) for word in known])
