"""Files of a user: only regular ones, only so many bytes, and one line for whatever is wrong."""

import hashlib
import os
import platform
import stat
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import mkdtemp
from typing import ParamSpec, TypeVar

from platformdirs import user_log_path

from continual_mm.system.errors import InputError, first_line, printable

LARGEST_TEXT = 1 << 30
"""Bytes of a text that is read as a whole; more than this no list or record has."""

UNEXPECTED = "unexpected"
"""The word that begins what is said of an error that the code did not foresee."""

_Given = ParamSpec("_Given")
_Read = TypeVar("_Read")

_LONGEST_LOG = 1 << 20  # characters of a traceback that are kept


@contextmanager
def reading(place: object) -> Iterator[None]:
    """Around what reads a user's file: any error in the block is an InputError about ``place``.

    Errors that the code foresees are InputErrors already and pass. Of another one, which is a
    mistake of ours or a damage that nobody thought of, the traceback is kept for a bug report.
    """
    try:
        yield
    except (InputError, ImportError):
        raise
    except OSError as error:
        problem = f"cannot be read or written: {error.strerror or error}"
        raise InputError.at(error.filename or place, problem) from error
    except Exception as error:
        raise InputError.at(place, *unforeseen(error)) from error


def reads(function: Callable[_Given, _Read]) -> Callable[_Given, _Read]:
    """Put a function that reads what its first argument names under :func:`reading`."""

    @wraps(function)
    def guarded(*args: _Given.args, **kwargs: _Given.kwargs) -> _Read:
        with reading(next(iter((*args, *kwargs.values())), "")):
            return function(*args, **kwargs)

    return guarded


def unforeseen(error: Exception) -> tuple[str, str]:
    """Problem and remedy of any error; the traceback is kept of one that is not foreseen."""
    if isinstance(error, MemoryError):
        return "needs more memory than there is", ""
    if isinstance(error, RecursionError):
        return "is nested too deeply to be read", ""
    if isinstance(error, RuntimeError) and "Symlink loop" in str(error):  # of Path.resolve
        return "cannot be followed: links lead in a circle", ""
    problem = f"{UNEXPECTED} {type(error).__name__}: {printable(first_line(error))}"
    where = kept_traceback(error)
    report = f", with {where}, where the details are" if where else ""
    return problem, f"if the input is sound, please report this{report}"


def kept_traceback(error: BaseException) -> Path | None:
    """Write an error's traceback into the user's log folder; None if it cannot be written.

    Equal tracebacks share one file. Nothing is sent anywhere.
    """
    lines = "".join(traceback.format_exception(error))[-_LONGEST_LOG:]
    digest = hashlib.sha256(lines.encode("utf-8", "backslashreplace")).hexdigest()
    name = f"{type(error).__name__}-{digest[:12]}.log"
    about = f"continual-mm {_version()}, Python {sys.version}, {platform.platform()}\n{sys.argv}\n"
    for make_folder in (_log_folder, _temporary_folder):
        try:
            path = make_folder() / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                with path.open("x", encoding="utf-8", errors="backslashreplace") as file:
                    file.write(about + lines)
            return path
        except (OSError, RuntimeError):  # no such folder, and a home that is not known
            continue
    return None


def _log_folder() -> Path:
    return user_log_path("continual_mm")


def _temporary_folder() -> Path:
    return Path(mkdtemp(prefix="continual_mm-"))


def user_path(text: str, folder: Path | str = "") -> Path:
    """The path that a user's text means, relative to a folder, ``~`` as in a shell; an InputError.

    >>> user_path("clips/a.wav", "/data").as_posix()
    '/data/clips/a.wav'
    """
    place = f"'{printable(text)}'"
    if "\0" in text:
        raise InputError.at(place, "is no path: it contains a NUL character", "remove it")
    try:
        os.fsencode(text)
        path = Path(text).expanduser() if text.startswith("~") else Path(text)
    except UnicodeEncodeError as error:
        raise InputError.at(place, "is no path: it is no valid text") from error
    except RuntimeError as error:
        remedy = "write the folder in full, or ./ before a name that begins with ~"
        raise InputError.at(place, "begins with a user who is not known here", remedy) from error
    return Path(folder) / path


def check_regular(path: Path, remedy: str = "", *, most: int | None = None) -> None:
    """Refuse what is no regular file, such as a device or a pipe, and what has too many bytes."""
    try:
        found = path.stat()
    except FileNotFoundError as error:
        raise InputError.at(path, "no such file", remedy) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise InputError.at(path, f"cannot be read: {reason}", remedy) from error
    if stat.S_ISDIR(found.st_mode):
        raise InputError.at(path, "is a folder, not a file", remedy)
    if not stat.S_ISREG(found.st_mode):
        raise InputError.at(path, "is no regular file", remedy)
    if most is not None and found.st_size > most:
        problem = f"has {found.st_size:,} bytes; what is read here has at most {most:,}"
        raise InputError.at(path, problem, remedy)


def read_text(path: Path, remedy: str = "", *, most: int | None = LARGEST_TEXT) -> str:
    """A file's text in UTF-8, with or without the mark that spreadsheets put first."""
    check_regular(path, remedy, most=most)
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
        raise InputError.at(path, problem, remedy) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        problem = f"is not UTF-8: byte 0x{error.object[error.start]:02x} in line {line}"
        raise InputError.at(path, problem, "save it as UTF-8") from error


def _version() -> str:
    try:
        return version("continual-mm")
    except PackageNotFoundError:
        return "from a checkout"
