"""Word vectors on disk: a table and a list of its words, written once and from then on mapped."""

import errno
import fcntl
import gzip
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, BinaryIO

import numpy as np
from gensim.models import Word2Vec
from numpy.lib.format import dtype_to_descr, write_array_header_1_0
from numpy.typing import NDArray

from continual_mm.data.cache import cache_folder
from continual_mm.preparation.formats.machine.literals import told
from continual_mm.preparation.formats.recipe import Mode, Recipe
from continual_mm.system.errors import InputError, Problem

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
        InputError: If it is no such file.
        OSError: If it cannot be opened.
    """
    binary = path.name.removesuffix(".gz").endswith(".bin")
    with _opened_text(path) as stream:
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
        InputError: If the file ends early, or a vector is not finite or of another size.
        OSError: If it cannot be opened.
    """
    with _opened_text(path) as stream:
        for _ in range(header.lines):
            stream.readline()
        read = _binary_row if header.binary else _text_row
        for row in range(header.words):
            word, vector = read(stream, header.features, row, path)
            if not np.isfinite(vector).all():
                raise _damaged(path, f"word {row} ({word!r}): its vector is not finite")
            yield word, vector


@contextmanager
def _opened_text(path: Path) -> Iterator[IO[bytes]]:
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


def _damaged(path: Path, problem: str) -> InputError:
    return InputError(Problem(str(path), problem, _REMEDY))


_FORM = 2
"""Raised whenever what is kept of a file changes; tables of another form are made anew."""

_BLOCK = 1 << 20  # bytes that are written at once


@dataclass(frozen=True, slots=True)
class Places:
    """Where what is kept of a file of word vectors lies.

    Attributes:
        table: The vectors, ``.npy``.
        words: Their words, and what tells whose they are, ``.json``.
    """

    table: Path
    words: Path

    @classmethod
    def of(cls, path: Path, folder: Path) -> "Places":
        """For a file, in a folder."""
        table, words = (folder / f"{path.name}.vectors{ending}" for ending in (".npy", ".json"))
        return cls(table, words)


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """What was kept of a file.

    Attributes:
        words: In the order of the rows.
        values: (words, features) float32, a read-only map.
        fingerprint: Of all words and vectors.
    """

    words: list[str]
    values: Array
    fingerprint: str


def origin_of(path: Path) -> dict[str, Any]:
    """What tells that a file is still the one that was converted."""
    status = path.stat()
    return {"form": _FORM, "bytes": status.st_size, "changed": status.st_mtime_ns}


def kept(places: Places, origin: Mapping[str, Any]) -> Kept | None:
    """What was converted before, if it is whole and of the same file."""
    try:
        told = json.loads(places.words.read_text(encoding="utf-8"))
        if told["origin"] != dict(origin):
            return None
        values = np.load(places.table, mmap_mode="r", allow_pickle=False)
        found = Kept([str(word) for word in told["words"]], values, str(told["fingerprint"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None
    fits = values.dtype == np.float32 and values.ndim == 2 and len(values) == len(found.words)
    return found if fits else None


def convert(path: Path, places: Places, origin: Mapping[str, Any]) -> None:
    """Write the table of a file, unless another process has done that meanwhile.

    Everything goes through ordinary writing, never through a map: a disk that is full is then an
    error like others, and ends no process.

    Raises:
        InputError: If the file is damaged.
        OSError: If the file cannot be read, or the table not written.
    """
    places.table.parent.mkdir(parents=True, exist_ok=True)
    with _held(places.table.with_name(f".{places.table.name}.lock")):
        if kept(places, origin) is not None:
            return
        _sweep(places)
        try:
            _write(path, places, origin)
        finally:
            _sweep(places)


def _write(path: Path, places: Places, origin: Mapping[str, Any]) -> None:
    unfinished = {target: _unfinished(target) for target in (places.table, places.words)}
    header = read_header(path)
    with unfinished[places.table].open("wb", buffering=_BLOCK) as file:
        words, fingerprint = _write_table(path, header, file)
        _flush(file)
    told = {"origin": dict(origin), "fingerprint": fingerprint, "words": words}
    with unfinished[places.words].open("wb") as file:
        file.write(json.dumps(told, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        _flush(file)
    # The list names the file that both were made of, so it goes last.
    for target in (places.table, places.words):
        unfinished[target].replace(target)


def _write_table(path: Path, header: Header, file: BinaryIO) -> tuple[list[str], str]:
    """Write a table of exactly the rows that there are; of a word that occurs twice, the first."""
    _write_header(file, header.words, header.features)
    begin = file.tell()
    rows: dict[str, None] = {}
    digest = blake2b(digest_size=16)
    for word, vector in read_rows(path, header):
        if word in rows:
            continue
        rows[word] = None
        values = np.ascontiguousarray(vector, dtype=np.float32).tobytes()
        digest.update(word.encode("utf-8", "surrogatepass") + b"\0" + values)
        file.write(values)
    # NumPy leaves room in the header for any number of rows.
    file.seek(0)
    _write_header(file, len(rows), header.features)
    if file.tell() != begin:
        raise OSError(f"NumPy's header of {len(rows)} rows is not as long as that of more")
    return list(rows), digest.hexdigest()


def _write_header(file: BinaryIO, rows: int, features: int) -> None:
    descr = dtype_to_descr(np.dtype(np.float32))
    told = {"descr": descr, "fortran_order": False, "shape": (rows, features)}
    write_array_header_1_0(file, told)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _unfinished(target: Path) -> Path:
    return target.with_name(f".{target.name}.unfinished")


def _sweep(places: Places) -> None:
    """Remove what was not finished, now or by a process that was killed; only the lock's holder."""
    starts = tuple(f".{target.name}." for target in (places.table, places.words))
    for path in places.table.parent.iterdir():
        if path.name.startswith(starts) and path.suffix != ".lock":
            path.unlink(missing_ok=True)


@contextmanager
def _held(lock: Path) -> Iterator[None]:
    """Wait until nobody else is inside such a block; the lock goes with its process."""
    while True:
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever held it before has removed the file that was opened here.
            if not _is_same(file.fileno(), lock):
                continue
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def _is_same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


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
                :func:`~continual_mm.preparation.formats.word_vectors.known_rows`.

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
        InputError: If the file is missing, cut short or damaged, or there is no room.
    """
    folders = [path.parent, _cache_of(path)] if folder is None else [folder]
    try:
        found = _opened(path, [Places.of(path, each) for each in folders])
    except OSError as error:
        problem = f"cannot be converted: {error.strerror or error}"
        raise InputError(Problem(str(path), problem, _remedy(path, folders, error))) from error
    if found is None:
        problem = "was changed while it was read"
        raise InputError(Problem(str(path), problem, "try it again"))
    rows = {word: row for row, word in enumerate(found.words)}
    return WordVectors(MappingProxyType(rows), found.values, found.fingerprint)


def trained(texts: Iterable[str], *, features: int, seed: int) -> WordVectors:
    """Train skip-gram vectors on the words of some texts: the same in every process.

    Args:
        texts: Captions; words that occur once count as well.
        features: Numbers per word.
        seed: Of the vectors' beginnings and of the samples.

    Raises:
        InputError: If there is no word.
    """
    sentences = [tokens(text) for text in texts]
    if not any(sentences):
        raise InputError(Problem("captions", "have no word to train vectors on"))
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


_BLOCK_VALUES = 1 << 22


def digest_of(vectors: WordVectors) -> str:
    """A digest of words and vectors, the same whichever form of file they were read from.

    It reads the whole table once, a few megabytes at a time: seconds for GoogleNews' 3.6 GB.
    """
    digest = blake2b(digest_size=16, person=b"word vectors")
    words = sorted(vectors.rows, key=vectors.rows.__getitem__)
    digest.update(f"{vectors.values.shape}\n".encode())
    for word in words:
        digest.update(word.encode("utf-8", "surrogatepass") + b"\n")
    height = max(1, _BLOCK_VALUES // max(vectors.features, 1))
    for start in range(0, len(vectors.values), height):
        block = np.ascontiguousarray(vectors.values[start : start + height], dtype="<f4")
        digest.update(block.view(np.uint8).data)
    return digest.hexdigest()
