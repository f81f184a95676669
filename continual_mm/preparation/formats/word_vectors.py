"""Word vectors on disk: a table and a list of its words, written once and from then on mapped."""

import errno
import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.lib.format import dtype_to_descr, write_array_header_1_0
from numpy.typing import NDArray

from continual_mm.data.cache import cache_folder
from continual_mm.preparation.formats.recipe import Mode, Recipe
from continual_mm.system.errors import InputError
from continual_mm.system.files import write_lock
from continual_mm.system.reading import reads

Array = NDArray[np.float32]

_WORD = re.compile(r"[\w']+")


def tokens(text: str) -> list[str]:
    """The runs of letters, digits, underscores and apostrophes in a text, as they are written."""
    return _WORD.findall(text)


def words_of(text: str) -> list[str]:
    """The words of a text, as they are written."""
    return [match[0] for match in _WORD.finditer(text)]


def known_rows(
    text: str, vocabulary: Mapping[str, int], *, max_words: int, mode: Mode
) -> list[int]:
    """The rows of a text's first ``max_words`` known words; unknown words are dropped.

    ``reference`` knows words only as they are written, so that "Add" at the beginning of a sentence
    is not "add"; ``robust`` tries the lower case of a word that is unknown.
    """
    # Word by word: a text may be hours of speech, of which only the first words are kept.
    found: list[int] = []
    words = _WORD.finditer(text)
    while len(found) < max_words and (match := next(words, None)):
        row = vocabulary.get(match[0])
        if row is None and mode == "robust":
            row = vocabulary.get(match[0].lower())
        if row is not None:
            found.append(row)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class WordVectors:
    """The row of each word in a table of vectors, (words, features), and a digest of its file."""

    rows: Mapping[str, int]
    values: Array
    fingerprint: str = ""

    @property
    def features(self) -> int:
        """Numbers per word."""
        return int(self.values.shape[1])

    def of(self, text: str, recipe: Recipe) -> Array | None:
        """(words, features) of a text's known words, see :func:`known_rows`; None without any."""
        known = known_rows(text, self.rows, max_words=recipe.max_words, mode=recipe.mode)
        found: Array = np.array(self.values[known], dtype=np.float32)
        if recipe.reference:  # with zeros behind the last word
            return np.pad(found, ((0, recipe.max_words - len(known)), (0, 0)))
        return found if known else None

    def stored(self, text: str, recipe: Recipe) -> list[int] | None:
        """The rows of a text's known words in this table, for a store; None if there is none.

        In ``reference`` one row of zeros, behind the table, fills a text up: it gives what the
        published many give, since a maximum is taken over all.
        """
        known = known_rows(text, self.rows, max_words=recipe.max_words, mode=recipe.mode)
        if recipe.reference:
            return known if len(known) == recipe.max_words else [*known, len(self.values)]
        return known or None


_FORM = 2  # of converted tables; those of another form are converted anew

_BLOCK_VALUES = 1 << 22


def digest_of(vectors: WordVectors) -> str:
    """A digest of words and vectors, the same from any form of file; some seconds for 3.6 GB."""
    digest = blake2b(digest_size=16, person=b"word vectors")
    digest.update(f"{vectors.values.shape}\n".encode())
    for word in sorted(vectors.rows, key=vectors.rows.__getitem__):
        digest.update(word.encode("utf-8", "surrogatepass") + b"\n")
    height = max(1, _BLOCK_VALUES // max(vectors.features, 1))
    for start in range(0, len(vectors.values), height):
        block = np.ascontiguousarray(vectors.values[start : start + height], dtype="<f4")
        digest.update(block.view(np.uint8).data)
    return digest.hexdigest()


@reads
def open_vectors(path: Path, folder: Path | None = None) -> WordVectors:
    """Open word vectors of the word2vec program, of GloVe, or that gensim wrote in these forms.

    A ``.bin`` or ``.bin.gz`` is binary (GoogleNews), all else text, with or without the line that
    counts words. The first time it is converted, row by row, to a ``.npy`` table and a JSON list of
    words in ``folder``, else beside the file or in the user's cache; afterwards it is mapped.
    """
    # Beside the file or, where nothing can be written there, in the user's cache folder.
    name = blake2b(os.fsencode(path.resolve()), digest_size=8).hexdigest()
    folders = [path.parent, cache_folder() / "vectors" / name] if folder is None else [folder]
    tables = [folder / f"{path.name}.vectors.npy" for folder in folders]
    try:
        status = path.stat()
        origin = {"form": _FORM, "bytes": status.st_size, "changed": status.st_mtime_ns}
        found = next(filter(None, (_converted(table, origin) for table in tables)), None)
        if found is None:
            writable = (table for table in tables if os.access(table.parent, os.W_OK))
            table = next(writable, tables[-1])
            _convert(path, table, origin)
            found = _converted(table, origin)
    except OSError as error:
        problem = f"cannot be converted: {error.strerror or error}"
        raise InputError.at(path, problem, _remedy(path, folders, error)) from error
    if found is None:
        raise InputError.at(path, "was changed while it was read", "try it again")
    return found


_READ_ONLY = frozenset((errno.EACCES, errno.EPERM, errno.EROFS))


def _remedy(path: Path, folders: list[Path], error: OSError) -> str:
    if not os.access(path, os.R_OK) or not path.is_file():
        return "give a file of vectors that can be read"
    if error.errno in _READ_ONLY:
        return f"make {folders[0]} writable, or set CONTINUAL_MM_CACHE to a folder that is"
    return f"make room in {folders[0]}: a table takes about as much as its file, unpacked"


def _converted(table: Path, origin: Mapping[str, Any]) -> WordVectors | None:
    """What was converted before, if it is complete and of the same file."""
    try:
        content = json.loads(table.with_suffix(".json").read_text(encoding="utf-8"))
        if content["origin"] != dict(origin):
            return None
        values = np.load(table, mmap_mode="r", allow_pickle=False)
        rows = {str(word): row for row, word in enumerate(content["words"])}
        fingerprint = str(content["fingerprint"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    if values.dtype != np.float32 or values.ndim != 2 or len(values) != len(rows):
        return None
    return WordVectors(MappingProxyType(rows), values, fingerprint)


def _convert(path: Path, table: Path, origin: Mapping[str, Any]) -> None:
    """Write the table of a file, unless another process did that meanwhile."""
    with write_lock(table, wait=True):
        if _converted(table, origin) is not None:
            return
        targets = (table, table.with_suffix(".json"))
        unfinished = [target.with_name(f".{target.name}.unfinished") for target in targets]
        for temporary in unfinished:  # what a killed process left
            temporary.unlink(missing_ok=True)
        try:
            # Written, not mapped: a full disk is then an error, and ends no process.
            with unfinished[0].open("xb", buffering=1 << 20) as file:
                words, fingerprint = _write_table(_File.of(path), file)
                _flush(file)
            content = {"origin": dict(origin), "fingerprint": fingerprint, "words": words}
            with unfinished[1].open("xb") as file:
                file.write(json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass"))
                _flush(file)
            # The list names the file that both were made of, so it comes last.
            for temporary, target in zip(unfinished, targets, strict=True):
                temporary.replace(target)
        finally:
            for temporary in unfinished:
                temporary.unlink(missing_ok=True)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


_LONGEST_WORD = 1 << 16
_MOST_FEATURES = 1 << 16
_MOST_WORDS = 1 << 28


@dataclass(frozen=True, slots=True)
class _File:
    """A file of so many words and numbers per word, and ``lines`` before the first word."""

    # gensim reads no word with spaces, of which GloVe's largest file has some, and needs eight
    # times the memory.
    path: Path
    words: int
    features: int
    lines: int

    @classmethod
    def of(cls, path: Path) -> "_File":
        """Read a file's first line, which says what it holds; if it does not, lines are counted."""
        binary = _is_binary(path)
        with _stream(path) as stream:
            line = stream.readline(_LONGEST_WORD)
            if other := _another_format(line):
                raise InputError.at(path, *other)
            start = line.split()
            if len(start) == 2 and all(number.isdigit() for number in start):
                file = cls(path, int(start[0]), int(start[1]), lines=1)
            elif binary or len(start) < 2:
                raise _damaged(path, "does not begin with the numbers of words and of features")
            else:
                count = 1 + sum(1 for line in stream if line.strip())
                file = cls(path, count, len(start) - 1, lines=0)
        if not (0 < file.words <= _MOST_WORDS and 0 < file.features <= _MOST_FEATURES):
            raise _damaged(path, f"claims {file.words} words of {file.features} features")
        least = file.words * (4 * file.features + 2 if binary else 2 * file.features)
        if path.suffix != ".gz" and least > path.stat().st_size:
            raise _damaged(path, f"is cut short: {file.words} words do not fit into its size")
        return file

    def rows(self) -> Iterator[tuple[str, Array]]:
        """Every word and its vector, (features,), in the file's order."""
        read = self._binary_row if _is_binary(self.path) else self._text_row
        with _stream(self.path) as stream:
            for _ in range(self.lines):
                stream.readline()
            for row in range(self.words):
                name, vector = read(stream, row)
                word = name.decode("utf-8", "ignore")  # a few of GoogleNews' are no UTF-8
                if not np.isfinite(vector).all():
                    raise _damaged(self.path, f"word {row} ({word!r}): its vector is not finite")
                yield word, vector

    def _binary_row(self, stream: IO[bytes], row: int) -> tuple[bytes, Array]:
        name = bytearray()
        while (letter := stream.read(1)) != b" ":
            if not letter or len(name) > _LONGEST_WORD:
                raise _damaged(self.path, f"is cut short: it ends in word {row}")
            name += letter
        raw = stream.read(4 * self.features)
        if len(raw) < 4 * self.features:
            raise _damaged(self.path, f"is cut short: it ends in the vector of word {row}")
        return bytes(name).lstrip(b"\n"), np.frombuffer(raw, "<f4").astype(np.float32)

    def _text_row(self, stream: IO[bytes], row: int) -> tuple[bytes, Array]:
        line = stream.readline().rstrip(b" \r\n")
        if not line:
            raise _damaged(self.path, f"is cut short: it ends before word {row}")
        name, *numbers = line.rsplit(b" ", self.features)
        try:
            vector = np.array([float(number) for number in numbers], dtype=np.float32)
        except ValueError:
            vector = np.empty(0, dtype=np.float32)
        if len(vector) != self.features:
            raise _damaged(self.path, f"word {row} does not have {self.features} numbers")
        return name, vector


_WRITE = "KeyedVectors's save_word2vec_format('words.bin', binary=True)"

_FORMATS: Mapping[bytes, tuple[str, str]] = MappingProxyType(
    {
        b"\xba\x16O/": (
            "is a model of fastText, which makes vectors of parts of words",
            "take the .vec of the same vectors, or write them with gensim: "
            f"load_facebook_vectors(path), then {_WRITE}",
        ),
        b"\x80": (
            "is a pickle, as gensim keeps its own",
            f"write it with gensim: KeyedVectors.load(path), then {_WRITE}",
        ),
        b"PK\x03\x04": ("is a zip archive", "unpack it, and give the file of vectors in it"),
        b"\x1f\x8b": ("is compressed with gzip", "let its name end in .gz"),
        b"\x93NUMPY": ("is an array of NumPy, which has no words", "give a file with the words"),
    }
)
"""How files of other formats begin -> what they are, and what to do about it."""


def _another_format(start: bytes) -> tuple[str, str] | None:
    return next((said for magic, said in _FORMATS.items() if start.startswith(magic)), None)


def _is_binary(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith(".bin")


@contextmanager
def _stream(path: Path) -> Iterator[IO[bytes]]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            yield stream  # type: ignore[misc]
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, "is cut short or damaged") from error


def _damaged(path: Path, problem: str) -> InputError:
    return InputError.at(path, problem, "copy or download it again")


def _write_table(source: _File, file: BinaryIO) -> tuple[list[str], str]:
    """Write a table of exactly the rows that there are; of a word that occurs twice, the first."""
    _write_header(file, source.words, source.features)
    begin = file.tell()
    rows: dict[str, None] = {}
    digest = blake2b(digest_size=16)
    for word, vector in source.rows():
        if word not in rows:
            rows[word] = None
            values = vector.tobytes()
            digest.update(word.encode("utf-8", "surrogatepass") + b"\0" + values)
            file.write(values)
    # NumPy leaves room in the header for any number of rows.
    file.seek(0)
    _write_header(file, len(rows), source.features)
    if file.tell() != begin:
        raise OSError(f"NumPy's header of {len(rows)} rows is not as long as that of more")
    return list(rows), digest.hexdigest()


def _write_header(file: BinaryIO, rows: int, features: int) -> None:
    descr = dtype_to_descr(np.dtype(np.float32))
    header = {"descr": descr, "fortran_order": False, "shape": (rows, features)}
    write_array_header_1_0(file, header)
