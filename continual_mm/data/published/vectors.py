"""Word vectors: a table of rows and the words they belong to, mapped into memory."""

import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType

import numpy as np
from gensim.models import Word2Vec
from numpy.typing import NDArray

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.cache import cache_folder
from continual_mm.data.published.recipe import Recipe
from continual_mm.data.published.vector_table import Kept, Places, convert, kept, origin_of
from continual_mm.data.published.words import known_rows, tokens

Array = NDArray[np.float32]

_READ_ONLY = frozenset((errno.EACCES, errno.EPERM, errno.EROFS))


@dataclass(frozen=True, slots=True, eq=False)
class WordVectors:
    """Words and their vectors.

    Attributes:
        rows: The row of each word.
        values: (words, features) float32; a read-only map of a file where there is one.
        fingerprint: Of all words and vectors of a file; empty where there is none.
    """

    rows: Mapping[str, int]
    values: Array
    fingerprint: str = ""

    @property
    def features(self) -> int:
        """Numbers per word."""
        return int(self.values.shape[1])

    def of(self, text: str, recipe: Recipe) -> Array | None:
        """The vectors of a text's known words, at most ``max_words`` of them.

        Args:
            text: What is said or written.
            recipe: In ``reference`` there are always ``max_words`` rows, zeros behind the last
                word, and words are known only as they are written; see
                :func:`~continual_mm.data.published.words.known_rows`.

        Returns:
            (words, features), or None in ``robust`` where no word is known.
        """
        known = known_rows(text, self.rows, max_words=recipe.max_words, mode=recipe.mode)
        found: Array = np.array(self.values[known], dtype=np.float32)
        if recipe.reference:
            return np.pad(found, ((0, recipe.max_words - len(known)), (0, 0)))
        return found if known else None

    def stored(self, text: str, recipe: Recipe) -> list[int] | None:
        """The rows of a text's known words, for items of a store whose words are this table.

        In ``reference`` the row of zeros behind the table fills a text up: one does what the
        published many do, since a maximum is taken over all.

        Returns:
            None in ``robust`` where no word is known.
        """
        known = known_rows(text, self.rows, max_words=recipe.max_words, mode=recipe.mode)
        if recipe.reference:
            return known if len(known) == recipe.max_words else [*known, len(self.values)]
        return known or None


def open_vectors(path: Path, folder: Path | None = None) -> WordVectors:
    """Open word vectors of the word2vec program, of GloVe, or that gensim wrote in these forms.

    The first time, the file is converted to a ``.npy`` table and a JSON list of words, row by row,
    so that memory does not limit its size; afterwards the table is only mapped.

    Args:
        path: ``.bin`` or ``.bin.gz`` for the binary form (GoogleNews-vectors-negative300), any
            other ending for text, with or without the line that counts words.
        folder: Where the converted files lie. By default beside the file, or in the user's cache
            folder if nothing can be written there.

    Raises:
        RefusedError: If the file is missing, cut short or damaged, or there is no room.
    """
    folders = [path.parent, _cache_of(path)] if folder is None else [folder]
    try:
        found = _opened(path, [Places.of(path, each) for each in folders])
    except OSError as error:
        problem = f"cannot be converted: {error.strerror or error}"
        raise RefusedError(Complaint(str(path), problem, _remedy(path, folders, error))) from error
    if found is None:
        problem = "was changed while it was read"
        raise RefusedError(Complaint(str(path), problem, "try it again"))
    rows = {word: row for row, word in enumerate(found.words)}
    return WordVectors(MappingProxyType(rows), found.values, found.fingerprint)


def trained(texts: Iterable[str], *, features: int, seed: int) -> WordVectors:
    """Train skip-gram vectors on the words of some texts: the same in every process.

    Args:
        texts: Captions; words that occur once count as well.
        features: Numbers per word.
        seed: Of the vectors' beginnings and of the samples.

    Raises:
        RefusedError: If there is no word.
    """
    sentences = [tokens(text) for text in texts]
    if not any(sentences):
        raise RefusedError(Complaint("captions", "have no word to train vectors on"))
    model = Word2Vec(
        sentences,
        vector_size=features,
        min_count=1,
        sg=1,
        negative=10,
        epochs=10,
        seed=seed % 2**32,
        workers=1,  # more would make the order of the updates, and so the vectors, a matter of luck
    )
    rows = {word: row for row, word in enumerate(model.wv.index_to_key)}
    return WordVectors(MappingProxyType(rows), np.asarray(model.wv.vectors, dtype=np.float32))


def _opened(path: Path, places: list[Places]) -> Kept | None:
    """What is kept of a file in one of some places, or else in the first that can be written."""
    origin = origin_of(path)
    for place in places:
        if (found := kept(place, origin)) is not None:
            return found
    *first, last = places
    for place in first:
        try:
            convert(path, place, origin)
            return kept(place, origin)
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise
    convert(path, last, origin)
    return kept(last, origin)


def _cache_of(path: Path) -> Path:
    """A folder for a file that lies where nothing can be written."""
    whose = blake2b(str(path.resolve()).encode("utf-8", "surrogateescape"), digest_size=8)
    return cache_folder() / "vectors" / whose.hexdigest()


def _remedy(path: Path, folders: list[Path], error: OSError) -> str:
    if not os.access(path, os.R_OK) or not path.is_file():
        return "give a file of vectors that can be read"
    if error.errno in _READ_ONLY:
        return f"make {folders[0]} writable, or set CONTINUAL_MM_CACHE to a folder that is"
    return f"make room in {folders[0]}: a table takes about as much as its file, unpacked"
