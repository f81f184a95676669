"""From a text to the rows of its words in a vocabulary."""

import re
from collections.abc import Mapping
from itertools import islice

from continual_mm.data.pickles.literals import told
from continual_mm.data.published.recipe import Mode

_WORD = re.compile(r"[\w']+")


def written(text: str) -> str:
    r"""A text as UTF-8 can hold it; strings of Python 2 are read as text.

    Halves of characters, as Python 2 pickled them, are joined. A half that stands alone becomes the
    character for what cannot be read; so does NUL.

    >>> written("\ud83d\ude00") == "\U0001f600"
    True
    """
    whole = told(text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return whole.replace("\0", "\N{REPLACEMENT CHARACTER}")


def tokens(text: str) -> list[str]:
    """Split a text into runs of letters, digits, underscores and apostrophes, as they are written.

    >>> tokens("don't stop, it's 20°C—OK_ay")
    ["don't", 'stop', "it's", '20', 'C', 'OK_ay']
    """
    return _WORD.findall(text)


def known_rows(
    text: str, vocabulary: Mapping[str, int], *, max_words: int, mode: Mode
) -> list[int]:
    """The rows of a text's known words, in their order; unknown words are dropped.

    Args:
        text: What is said or written.
        vocabulary: Row of each known word.
        max_words: How many are kept.
        mode: ``reference`` knows words only as they are written, so that "Add" at the beginning of
            a sentence is not "add"; ``robust`` tries the lower case of a word that is unknown.

    >>> known_rows("Add the Salt", {"add": 0, "Salt": 1}, max_words=20, mode="robust")
    [0, 1]
    >>> known_rows("Add the Salt", {"add": 0, "Salt": 1}, max_words=20, mode="reference")
    [1]
    """
    # Word by word: a text may be hours of speech, of which the first words are all that counts.
    found = (_row(word[0], vocabulary, mode) for word in _WORD.finditer(text))
    return list(islice((row for row in found if row is not None), max_words))


def _row(word: str, vocabulary: Mapping[str, int], mode: Mode) -> int | None:
    row = vocabulary.get(word)
    return vocabulary.get(word.lower()) if row is None and mode == "robust" else row
