"""The instructions of a pickle that hold a value: from their bytes to the value."""

import codecs
import mmap
import pickle
import re
import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType

from continual_mm.preparation.formats.machine.fault import FaultError


class Source:
    """The bytes of a pickle, read once from the front; never more than there are.

    Attributes:
        at: The position of the next byte.
        size: How many bytes there are.
    """

    __slots__ = ("_data", "at", "size")

    def __init__(self, data: bytes | mmap.mmap, at: int = 0) -> None:
        self._data, self.at, self.size = data, at, len(data)

    def byte(self) -> int:
        """The next byte."""
        at = self.at
        if at >= self.size:
            raise cut_short()
        self.at = at + 1
        return self._data[at]

    def take(self, count: int) -> bytes:
        """The next bytes."""
        start, end = self.at, self.at + count
        if end > self.size or count < 0:
            raise cut_short()
        self.at = end
        return self._data[start:end]

    def line(self) -> bytes:
        """The bytes up to the next newline, which is passed over."""
        end = self._data.find(b"\n", self.at)
        if end < 0:
            raise cut_short()
        line = self._data[self.at : end]
        self.at = end + 1
        return line

    def number(self, form: struct.Struct) -> int:
        """The next number of a fixed size."""
        (value,) = form.unpack(self.take(form.size))
        return int(value)

    def counted(self, form: struct.Struct) -> bytes:
        """Bytes behind a number that says how many they are."""
        return self.take(self.number(form))


BYTE, SHORT, INT, WORD, LONG = (struct.Struct(f"<{code}") for code in "BHiIQ")
_FLOAT = struct.Struct(">d")
_ESCAPE = rb"\\(?:[\\'\"abfnrtv]|[0-3][0-7]{2}|[0-7]{1,2}(?![0-7])|x[0-9a-fA-F]{2})"
# Of whole runs, one after the other: a pattern for all of a long string would try every way back.
_RUN = {quote: re.compile(rb"[^\\%b]+|%b" % (quote, _ESCAPE), re.DOTALL) for quote in (b"'", b'"')}
_SURROGATES = "surrogatepass"


def cut_short() -> FaultError:
    """The problem about a file that ends too early."""
    return FaultError("is cut short: it ends in the middle of a value", "copy or write it again")


def text(raw: bytes) -> str:
    """A string as pickles store it."""
    return raw.decode("utf-8", _SURROGATES)


class OldText(str):
    """A string of Python 2 with bytes beyond ASCII: one character per byte, text or not."""

    __slots__ = ()


def told(found: str) -> str:
    r"""A text that people read: a string of Python 2 is UTF-8 where it can be, else latin-1.

    >>> told(OldText("don\xe2\x80\x99t")), told(OldText("caf\xe9")), told("\xe2\x80\x99")
    ('don’t', 'café', 'â\x80\x99')
    """
    if not isinstance(found, OldText):
        return found
    try:
        return found.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return str(found)


def _old_text(raw: bytes) -> str:
    """A string of Python 2, which may be an array's bytes as well as text."""
    characters = raw.decode("latin-1")
    return characters if raw.isascii() else OldText(characters)


def _quoted(source: Source) -> str:
    line = source.line().strip()
    run = _RUN.get(line[:1])
    if run is None or len(line) < 2 or line[-1:] != line[:1] or run.sub(b"", line[1:-1]):
        raise FaultError("has a string that Python 2 would not have written")
    return _old_text(codecs.escape_decode(line[1:-1])[0])


def _whole(source: Source) -> int | bool:
    line = source.line()
    return line == b"01" if line in (b"00", b"01") else int(line)


def _little(raw: bytes) -> int:
    return int.from_bytes(raw, "little", signed=True)


def _float(source: Source) -> float:
    (value,) = _FLOAT.unpack(source.take(_FLOAT.size))
    return float(value)


LITERALS: Mapping[int, Callable[[Source], object]] = MappingProxyType(
    {
        pickle.NONE[0]: lambda source: None,
        pickle.NEWTRUE[0]: lambda source: True,
        pickle.NEWFALSE[0]: lambda source: False,
        pickle.INT[0]: _whole,
        pickle.LONG[0]: lambda source: int(source.line().rstrip(b"L")),
        pickle.BININT[0]: lambda source: source.number(INT),
        pickle.BININT1[0]: lambda source: source.byte(),
        pickle.BININT2[0]: lambda source: source.number(SHORT),
        pickle.LONG1[0]: lambda source: _little(source.counted(BYTE)),
        pickle.LONG4[0]: lambda source: _little(source.counted(INT)),
        pickle.FLOAT[0]: lambda source: float(source.line()),
        pickle.BINFLOAT[0]: _float,
        pickle.STRING[0]: _quoted,
        pickle.SHORT_BINSTRING[0]: lambda source: _old_text(source.counted(BYTE)),
        pickle.BINSTRING[0]: lambda source: _old_text(source.counted(INT)),
        pickle.UNICODE[0]: lambda source: source.line().decode("raw-unicode-escape"),
        pickle.SHORT_BINUNICODE[0]: lambda source: text(source.counted(BYTE)),
        pickle.BINUNICODE[0]: lambda source: text(source.counted(WORD)),
        pickle.BINUNICODE8[0]: lambda source: text(source.counted(LONG)),
        pickle.SHORT_BINBYTES[0]: lambda source: source.counted(BYTE),
        pickle.BINBYTES[0]: lambda source: source.counted(WORD),
        pickle.BINBYTES8[0]: lambda source: source.counted(LONG),
        pickle.BYTEARRAY8[0]: lambda source: bytearray(source.counted(LONG)),
        pickle.EMPTY_TUPLE[0]: lambda source: (),
        pickle.EMPTY_LIST[0]: lambda source: [],
        pickle.EMPTY_DICT[0]: lambda source: {},
        pickle.EMPTY_SET[0]: lambda source: set(),
    }
)
"""By instruction: reads the value that it puts on the stack."""
