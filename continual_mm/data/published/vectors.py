"""Word vectors: a table of rows and the words they belong to, mapped into memory."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import numpy as np
from gensim.models import Word2Vec
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.published.recipe import Recipe
from continual_mm.data.published.word_files import Header, read_header, read_rows
from continual_mm.data.published.words import known_rows, tokens

Array = NDArray[np.float32]

_FORM = 1
"""Raised whenever what is kept of a file changes; tables of another form are made anew."""


@dataclass(frozen=True, slots=True, eq=False)
class WordVectors:
    """Words and their vectors.

    Attributes:
        rows: The row of each word.
        values: (words, features) float32; a read-only map of a file where there is one.
    """

    rows: Mapping[str, int]
    values: Array

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
        folder: Where the converted files lie; beside the file, if None.

    Raises:
        RefusedError: If the file is missing, cut short or damaged, or the folder is not writable.
    """
    folder = path.parent if folder is None else folder
    table, words = (folder / f"{path.name}.vectors{ending}" for ending in (".npy", ".json"))
    try:
        origin = _origin(path)
        found = _kept(table, words, origin)
        if found is None:
            _convert(path, table, words, origin)
            found = _kept(table, words, origin)
    except OSError as error:
        problem = f"cannot be converted: {error.strerror or error}"
        remedy = "name a folder that can be written" if path.is_file() else "give a file of vectors"
        raise RefusedError(Complaint(str(path), problem, remedy)) from error
    if found is None:
        problem = "was changed while it was read"
        raise RefusedError(Complaint(str(path), problem, "try it again"))
    return found


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


def _origin(path: Path) -> dict[str, Any]:
    """What tells that a file is still the one that was converted."""
    status = path.stat()
    return {"form": _FORM, "bytes": status.st_size, "changed": status.st_mtime_ns}


def _kept(table: Path, words: Path, origin: Mapping[str, Any]) -> WordVectors | None:
    """What was converted before, if it is whole and of the same file."""
    try:
        kept = json.loads(words.read_text(encoding="utf-8"))
        if kept["origin"] != dict(origin):
            return None
        values = np.load(table, mmap_mode="r", allow_pickle=False)
        rows = {str(word): row for row, word in enumerate(kept["words"])}
    except (OSError, ValueError, LookupError, TypeError):
        return None
    fits = values.dtype == np.float32 and values.ndim == 2 and len(values) == len(rows)
    return WordVectors(MappingProxyType(rows), values) if fits else None


def _convert(path: Path, table: Path, words: Path, origin: Mapping[str, Any]) -> None:
    table.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid4().hex
    unfinished = {target: target.with_name(f".{target.name}.{mark}") for target in (table, words)}
    try:
        header = read_header(path)
        names = _write_table(path, header, unfinished[table])
        content = json.dumps({"origin": dict(origin), "words": names}, ensure_ascii=False)
        unfinished[words].write_text(content, encoding="utf-8", errors="surrogatepass")
        # The list names the file that both were made of, so it goes last.
        for target in (table, words):
            unfinished[target].replace(target)
    finally:
        for left in unfinished.values():
            left.unlink(missing_ok=True)


def _write_table(path: Path, header: Header, target: Path) -> list[str]:
    """Write a table of exactly the rows that there are; of a word that occurs twice, the first."""
    values = open_memmap(target, "w+", np.float32, (header.words, header.features))
    rows: dict[str, int] = {}
    for word, vector in _new_words(read_rows(path, header), rows):
        values[rows[word]] = vector
    values.flush()
    if len(rows) < header.words:
        del values
        _shorten(target, len(rows), header.features)
    return list(rows)


def _new_words(
    found: Iterator[tuple[str, Array]], rows: dict[str, int]
) -> Iterator[tuple[str, Array]]:
    for word, vector in found:
        if word not in rows:
            rows[word] = len(rows)
            yield word, vector


def _shorten(path: Path, count: int, features: int) -> None:
    """Keep only the first rows of a table."""
    whole = np.load(path, mmap_mode="r", allow_pickle=False)
    kept = path.with_name(f"{path.name}.short")
    try:
        shorter = open_memmap(kept, "w+", np.float32, (count, features))
        shorter[:] = whole[:count]
        shorter.flush()
        kept.replace(path)
    finally:
        kept.unlink(missing_ok=True)
