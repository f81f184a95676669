"""Files of word vectors, row by row: the word2vec program's binary and text forms, and GloVe's."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from continual_mm.complaint import Complaint, RefusedError

Array = NDArray[np.float32]

_LONGEST_WORD = 1 << 16
_MOST_FEATURES = 1 << 16
_MOST_WORDS = 1 << 28
_REMEDY = "copy or download it again"


@dataclass(frozen=True, slots=True)
class Header:
    """What a file of vectors holds.

    Attributes:
        words: How many words.
        features: Numbers per word.
        binary: Whether the numbers are float32, little end first, instead of text.
        lines: Lines before the first word.
    """

    words: int
    features: int
    binary: bool
    lines: int


def read_header(path: Path) -> Header:
    """Find out what a file of vectors holds; one without a line that says so is counted.

    Raises:
        RefusedError: If it is no such file.
        OSError: If it cannot be opened.
    """
    binary = path.name.removesuffix(".gz").endswith(".bin")
    with _opened(path) as stream:
        words = stream.readline(_LONGEST_WORD).split()
        if len(words) == 2 and all(word.isdigit() for word in words):
            header = Header(int(words[0]), int(words[1]), binary, lines=1)
        elif binary or len(words) < 2:
            raise _damaged(path, "does not begin with the numbers of words and of features")
        else:
            count = 1 + sum(1 for line in stream if line.strip())
            header = Header(count, len(words) - 1, binary, lines=0)
    if not (0 < header.words <= _MOST_WORDS and 0 < header.features <= _MOST_FEATURES):
        raise _damaged(path, f"claims {header.words} words of {header.features} features")
    least = header.words * (4 * header.features + 2 if binary else 2 * header.features)
    if path.suffix != ".gz" and least > path.stat().st_size:
        raise _damaged(path, f"is cut short: {header.words} words do not fit into its size")
    return header


def read_rows(path: Path, header: Header) -> Iterator[tuple[str, Array]]:
    """Every word and its vector, (features,), in the file's order.

    Words whose bytes are no UTF-8, of which GoogleNews has a few, keep what can be read of them.

    Raises:
        RefusedError: If the file ends early, or a vector is not finite or of another size.
        OSError: If it cannot be opened.
    """
    with _opened(path) as stream:
        for _ in range(header.lines):
            stream.readline()
        read = _binary_row if header.binary else _text_row
        for row in range(header.words):
            word, vector = read(stream, header.features, row, path)
            if not np.isfinite(vector).all():
                raise _damaged(path, f"word {row} ({word!r}): its vector is not finite")
            yield word, vector


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            yield stream  # type: ignore[misc]
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, "is cut short or damaged") from error


def _binary_row(stream: IO[bytes], features: int, row: int, path: Path) -> tuple[str, Array]:
    name = bytearray()
    while (letter := stream.read(1)) != b" ":
        if not letter or len(name) > _LONGEST_WORD:
            raise _damaged(path, f"is cut short: it ends in word {row}")
        name += letter
    raw = stream.read(4 * features)
    if len(raw) < 4 * features:
        raise _damaged(path, f"is cut short: it ends in the vector of word {row}")
    vector = np.frombuffer(raw, "<f4").astype(np.float32)
    return bytes(name).lstrip(b"\n").decode("utf-8", "ignore"), vector


def _text_row(stream: IO[bytes], features: int, row: int, path: Path) -> tuple[str, Array]:
    line = stream.readline().rstrip(b" \r\n")
    if not line:
        raise _damaged(path, f"is cut short: it ends before word {row}")
    # A word of GloVe may itself have spaces.
    name, *numbers = line.rsplit(b" ", features)
    try:
        vector = np.array([float(number) for number in numbers], dtype=np.float32)
    except ValueError:
        vector = np.empty(0, dtype=np.float32)
    if len(vector) != features:
        raise _damaged(path, f"word {row} does not have {features} numbers")
    return name.decode("utf-8", "ignore"), vector


def _damaged(path: Path, problem: str) -> RefusedError:
    return RefusedError(Complaint(str(path), problem, _REMEDY))
