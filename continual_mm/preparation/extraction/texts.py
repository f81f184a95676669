"""How texts become features of a run's modality ``text``, by what its dataset was made of."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from continual_mm.data import registry as datasets
from continual_mm.definitions.modality import Kind, Modality
from continual_mm.preparation.formats.recipe import Mode
from continual_mm.preparation.formats.word_vectors import (
    WordVectors,
    known_rows,
    open_vectors,
    words_of,
)
from continual_mm.system.errors import InputError, printable

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

TEXT = "text"  # the modality that strings are of

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Reader:
    """How strings become features of the modality ``text``: by a model, or by word vectors."""

    model: "SentenceTransformer | None" = None
    words: WordVectors | None = None
    mode: Mode = "robust"  # of :func:`~continual_mm.preparation.formats.word_vectors.known_rows`

    @property
    def known(self) -> bool:
        """Whether it reads any text."""
        return self.model is not None or self.words is not None

    def read(self, texts: Sequence[str], longest: int) -> list[Array]:
        """Features of texts, not standardised yet; of a text the first ``longest`` known words."""
        if self.model is not None:
            return list(self.model.encode(list(texts), show_progress_bar=False))
        if self.words is not None:
            return [_vectors(text, self.words, longest, self.mode) for text in texts]
        remedy = "give features, {'text': array}, or to search or export --vectors or --encoder"
        raise InputError.at(TEXT, "this does not know how strings became features", remedy)

    def unknown(self, text: str) -> list[str]:
        """Words of a text, but for stop words, that are left out: there is no vector of them."""
        if self.words is None:
            return []
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS  # noqa: PLC0415 - for this

        table, mode = self.words.rows, self.mode
        known = [(word, known_rows(word, table, max_words=1, mode=mode)) for word in words_of(text)]
        return [word for word, found in known if not found and word not in ENGLISH_STOP_WORDS]


def _vectors(text: str, words: WordVectors, longest: int, mode: Mode) -> Array:
    known = known_rows(text, words.rows, max_words=longest, mode=mode)
    if not known:
        place = f"text '{printable(text)}'"
        raise InputError.at(place, "has no known word", "write it in other words")
    return np.array(words.values[known], dtype=np.float32)


def reader_of(
    text: Modality | None,
    named: Iterable[str],
    *,
    mode: Mode,
    vectors: str | Path | None = None,
    encoder: str = "",
) -> Reader:
    """What reads texts for a space; one that reads none where that is not known.

    Args:
        text: The space's modality of that name; None without one.
        named: Names of the datasets that it was trained on; words of built-in ones are known.
        mode: That of the space.
        vectors: The file of word vectors that the texts were made of.
        encoder: The ``SentenceTransformer`` that they were made of.

    Raises:
        InputError: If what is given does not fit the modality.
    """
    if vectors is None and not encoder:
        known = map(datasets.words, named if text else ())
        words = next(filter(None, known), None)
        return Reader(words=_table(words) if words else None, mode=mode)
    option, wanted = ("--encoder", Kind.VECTOR) if encoder else ("--vectors", Kind.TOKENS)
    if text is None or text.kind is not wanted:
        found = "there is none" if text is None else f"its text is {text.kind}"
        raise InputError.at(option, f"is for a space with text of kind {wanted}; {found}")
    if vectors is not None and encoder:
        raise InputError.at("--encoder", "does not go with --vectors", "give what made the text")
    if encoder:
        from continual_mm.preparation.extraction.sentence_towers import (  # noqa: PLC0415
            open_encoder,
        )

        reader = Reader(open_encoder(encoder))
        size = reader.model.get_embedding_dimension() if reader.model else 0
    else:
        table = open_vectors(Path(vectors or ""))
        size, reader = table.features, Reader(words=table, mode=mode)
    if size != text.features:
        problem = f"gives {size} numbers, the run's text has {text.features}"
        raise InputError.at(f"{option} {encoder or vectors}", problem, "give what made the text")
    return reader


def _table(words: Mapping[str, Array]) -> WordVectors:
    return WordVectors({word: row for row, word in enumerate(words)}, np.stack([*words.values()]))
