"""Word vectors trained on captions and saved to a file, for conversions that use them."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from gensim.models import KeyedVectors, Word2Vec

from continual_mm.data import registry
from continual_mm.data.dataset import Split
from continual_mm.preparation.formats.howto100m import CaptionFile
from continual_mm.preparation.formats.word_vectors import tokens
from continual_mm.system.errors import InputError
from continual_mm.system.files import atomic_write
from continual_mm.system.reading import read_text

_CAPTIONS = (".json", ".pickle", ".pkl")
_BLOCK = 10_000  # captions of a dataset that are read at once


def texts_of(source: str) -> Iterator[str]:
    """Lines of a ``.txt``, captions of a ``.json`` or pickle, or of a dataset's training items."""
    path = Path(source)
    if path.suffix == ".txt":
        yield from read_text(path).splitlines()
    elif path.suffix in _CAPTIONS:
        captions = CaptionFile(path)
        for video in captions:
            yield from captions.of(video).texts
    else:
        dataset = registry.load(source, standardise=False, splits=["training"])
        if dataset.text is None:
            remedy = "give a dataset with the column text_raw, or a .txt file"
            raise InputError.at(source, "has no captions", remedy)
        rows = dataset.rows_of(Split.TRAIN)
        for start in range(0, len(rows), _BLOCK):
            yield from map(str, dataset.text[rows[start : start + _BLOCK]])


def train(texts: Iterable[str], path: Path, *, features: int, seed: int) -> int:
    """Train vectors on texts and write them in word2vec's form; the number of words."""
    if os.path.lexists(path):
        raise InputError.at(path, "is there already", "remove it, or choose another name")
    vectors = trained(texts, features=features, seed=seed)
    with atomic_write(path) as temporary:
        vectors.save_word2vec_format(str(temporary), binary=path.suffix == ".bin")
    return len(vectors)


def trained(
    texts: Iterable[str], *, features: int, seed: int, sample: float = 1e-3
) -> KeyedVectors:
    """Train skip-gram vectors on the words of some texts: the same in every process.

    Words more frequent than ``sample`` are left out at times, none if it is 0.
    """
    sentences = [tokens(text) for text in texts]
    if not any(sentences):
        raise InputError.at("captions", "have no word to train vectors on")
    model = Word2Vec(
        sentences,
        vector_size=features,
        min_count=1,
        sg=1,
        negative=10,
        sample=sample,
        epochs=10,
        seed=seed % 2**32,
        workers=1,  # more would make the order of the updates, and so the vectors, a matter of luck
    )
    return model.wv
