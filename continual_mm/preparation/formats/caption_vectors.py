"""Word vectors trained on captions and saved to a file, for conversions that use them."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from gensim.models import KeyedVectors

from continual_mm.data import registry
from continual_mm.data.dataset import Split
from continual_mm.preparation.formats.howto100m import CaptionFile
from continual_mm.preparation.formats.word_vectors import trained
from continual_mm.system.errors import InputError, Problem

_CAPTIONS = (".json", ".pickle", ".pkl")
_BLOCK = 10_000  # captions of a dataset that are read at once


def texts_of(source: str) -> Iterator[str]:
    """The captions of a file or of a dataset's training items.

    Args:
        source: ``.txt`` with a sentence in each line; ``.json``, ``.pickle`` or ``.pkl`` as
            ``howto100m.CaptionFile`` reads it; else a dataset.

    Raises:
        InputError: If it cannot be read or has no captions.
    """
    path = Path(source)
    if path.suffix == ".txt":
        yield from _lines(path)
    elif path.suffix in _CAPTIONS:
        captions = CaptionFile(path)
        for video in captions:
            yield from captions.of(video).texts
    else:
        yield from _captions(source)


def train(texts: Iterable[str], path: Path, *, features: int, seed: int) -> int:
    """Train vectors on texts and write them in word2vec's binary form; the number of words.

    Raises:
        InputError: If there is no word, or the file is there already.
    """
    if path.exists():
        remedy = "remove it, or choose another name"
        raise InputError(Problem(str(path), "is there already", remedy))
    found = trained(texts, features=features, seed=seed)
    vectors = KeyedVectors(vector_size=features)
    vectors.add_vectors(list(found.rows), np.asarray(found.values))
    path.parent.mkdir(parents=True, exist_ok=True)
    vectors.save_word2vec_format(str(path), binary=path.suffix == ".bin")
    return len(found.rows)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Problem(str(path), f"cannot be read: {error}")) from error


def _captions(source: str) -> Iterator[str]:
    dataset = registry.load(source, standardise=False, splits=["training"])
    if dataset.text is None:
        remedy = "give a dataset with the column text_raw, or a .txt file"
        raise InputError(Problem(source, "has no captions", remedy))
    rows = dataset.rows_of(Split.TRAIN)
    for start in range(0, len(rows), _BLOCK):
        yield from map(str, dataset.text[rows[start : start + _BLOCK]])
