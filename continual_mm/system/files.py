"""Files and folders that are complete or absent, locks between processes, and JSON."""

import json
import os
import re
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from errno import ENOSPC
from hashlib import file_digest, sha256
from pathlib import Path
from tempfile import TemporaryFile
from time import sleep
from typing import IO, Any
from uuid import uuid4

from filelock import lock_descriptor
from safetensors import SafetensorError

from continual_mm.system.errors import InputError, printable
from continual_mm.system.reading import read_text

LOCK = "run.lock"  # the file in a run's folder that the process at work locks
SEAL = "checksum"  # the key of what a table of JSON is checked by
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
TEMPORARY = ".writing-"  # how the names of files begin that are not complete yet
_UNWRITTEN = re.compile(r"\d+ requested and \d+ written")


class WriteError(OSError):
    """A file or folder cannot be written; its text is one line that names it and says why."""

    def __str__(self) -> str:
        return f"{self.filename}: cannot be written: {self.strerror}"


@contextmanager
def writing(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Raise errors of writing ``path``, or first ``temporary``, in the block as a WriteError.

    What cannot be read meanwhile stays the error that it is.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        number, place = _number(error), _place(error, path, temporary)
        if number is None or place is None:
            raise
        raise WriteError(number, os.strerror(number), str(place)) from error


def _number(error: OSError | SafetensorError) -> int | None:
    """Of an error of the operating system; None if it comes from elsewhere."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = re.search(r"os error (\d+)", str(error))
    # numpy counts what it could not write, and leaves out why: mostly there is no room.
    return int(found[1]) if found else ENOSPC if _UNWRITTEN.fullmatch(str(error)) else None


def _place(error: Exception, path: Path, temporary: Path | None) -> Path | None:
    """What could not be written; None if the error is about anything but ``path``."""
    name = getattr(error, "filename", None)
    found = path if name is None else Path(str(name))
    if temporary is not None and found.is_relative_to(temporary):
        return path / found.relative_to(temporary)
    return path if path.is_relative_to(found) else None


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when the block ends without error.

    A link at ``path`` is replaced, not followed. Errors of writing are a :class:`WriteError`.
    """
    temporary = _temporary_beside(path)
    with writing(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.touch(exist_ok=False)
            mode = temporary.stat().st_mode
            yield temporary
            # Some writers make the file anew, for its owner only.
            temporary.chmod(mode)
            _flush(temporary)
            temporary.replace(path)
            _flush(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its place when the block ends without error.

    Errors of writing are a :class:`WriteError`.
    """
    temporary = _temporary_beside(path)
    with writing(path, temporary):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            _replace_folder(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """As :func:`atomic_folder`, but new, and what a killed process left of it is removed first."""
    _check_absent(path)
    with write_lock(path):
        # The process that held the lock before may have finished just now.
        _check_absent(path)
        temporary = path.with_name(f".{path.name}.unfinished")
        try:
            with write_errors(str(path)):
                _remove(temporary)
                temporary.mkdir()
            with writing(path, temporary):
                yield temporary
            with write_errors(str(path)):
                _replace_folder(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def check_target(path: Path, *, folder: bool | None = None) -> None:
    """Refuse a path at which nothing can be written, before hours of work that is to be kept there.

    ``folder`` says whether it is to be one, None that either will do. Nothing stays there.
    """
    there = path
    try:
        while not _is_there(there):
            there = there.parent
        if not folder and there == path and there.is_symlink():
            there = there.parent  # a file takes the place of a link
        mode = there.stat().st_mode
        problem = _unfit(mode, True if there != path else folder)
        if not problem:
            # Permissions do not say whether a disk can be written.
            with TemporaryFile(dir=there if stat.S_ISDIR(mode) else there.parent):
                pass
    except OSError as error:
        dangling = isinstance(error, FileNotFoundError) and there.is_symlink()
        reason = "its link leads nowhere" if dangling else error.strerror or error
        problem = f"cannot be written: {reason}"
    if problem:
        raise InputError.at(printable(str(there)), problem, "choose another place")


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return path == path.parent
    return True


def _unfit(mode: int, folder: bool | None) -> str:
    """Why what is there cannot be written; empty if it can."""
    if stat.S_ISDIR(mode):
        return "is a folder, where a file is needed" if folder is False else ""
    if folder:
        return "is no folder, which is needed there"
    return "" if stat.S_ISREG(mode) else "is no regular file"


def remove_temporary(folder: Path) -> None:
    """Remove what killed processes left incomplete in a folder."""
    for path in folder.glob(f"{TEMPORARY}*"):
        _remove(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the only process in the block that writes into the folder of the lock file ``path``.

    It is an InputError if another one does, or if there is a link in the folder, at any depth:
    what is written there would go elsewhere.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _lock_file(path, path.parent)
    with file:
        _check_no_links(path.parent)
        yield


@contextmanager
def write_lock(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Be the only process that writes ``path``; another is waited for, or an InputError."""
    lock = path.with_name(f".{path.name}.lock")
    with write_errors(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _lock_file(lock, path, wait=wait)
    with file:
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def is_locked(path: Path) -> bool:
    """Whether a process is inside a block that :func:`locked` guards; nothing is written."""
    try:
        with os.fdopen(_opened(path, os.O_RDONLY)) as file:
            return not lock_descriptor(file.fileno(), blocking=False)
    except OSError:  # it is not there, or is a link, which no process locks
        return False


@contextmanager
def write_errors(target: str) -> Iterator[None]:
    """Raise errors of the operating system in the block as an InputError about a target."""
    try:
        yield
    except OSError as error:
        problem = f"cannot be written: {error.strerror or error}"
        raise InputError.at(target, problem, "make room, or choose another place") from error


def write_json(path: Path, value: Any, *, sealed: bool = False) -> None:
    """Write indented JSON with keys in the order given, NaN as null.

    A table that is ``sealed`` has a checksum of all else in it, which is checked when it is read.
    """
    plain = without_nan(value)
    if sealed:
        plain[SEAL] = digest(plain)
    with atomic_write(path) as temporary:
        text = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(
    path: Path, remedy: str = "choose another folder, or remove this one to begin anew"
) -> Any:
    """Read JSON; a file that is missing, damaged or not as it was sealed is an InputError."""
    text = read_text(path, remedy)
    try:
        return unsealed(text)
    except (RecursionError, ValueError) as error:
        raise InputError.at(path, f"cannot be read: {error}", remedy) from error


def unsealed(text: str | bytes) -> Any:
    """The value of JSON, without its checksum; a ValueError if there is one that does not fit."""
    value = json.loads(text)
    if isinstance(value, dict) and SEAL in value:
        expected = value.pop(SEAL)
        if expected != digest(value):
            raise ValueError("it was changed after it was written: its checksum does not fit")
    return value


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()


def differences(file: Path, value: Any) -> list[str]:
    """Where a value differs from the one in a JSON file, a sentence each."""
    return sentences(read_json(file), value)


def sentences(old: Any, new: Any, *, off: Collection[str] = ()) -> list[str]:
    """Where two JSON values differ, a sentence each; ``off`` as for :func:`differing`.

    >>> sentences({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}})
    ['a.b[2] was 2, is 3']
    """
    found = differing(old, without_nan(new), off=off)
    return [f"{where} was {before!r}, is {now!r}" for where, before, now in found]


def differing(
    old: Any, new: Any, where: str = "", *, off: Collection[str] = ()
) -> Iterator[tuple[str, Any, Any]]:
    """Where two JSON values differ, and both values; a missing key is as good as null.

    Below the top keys in ``off`` it is as good as zero, false or empty as well: what an earlier
    version wrote lacks keys that were added since, the features of which were off.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            inner = f"{where}.{key}" if where else key
            within = off if where else ("",) if key in off else ()
            if key in old and key in new:
                yield from differing(old[key], new[key], inner, off=within)
            elif not _as_good_as_missing(old.get(key, new.get(key)), off=bool(within)):
                yield inner, old.get(key), new.get(key)
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        for place, (before, now) in enumerate(zip(old, new, strict=True), start=1):
            yield from differing(before, now, f"{where}[{place}]", off=off)
    elif old != new:
        yield where, old, new


def _as_good_as_missing(value: Any, *, off: bool) -> bool:
    return value is None or (off and not value)


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def _temporary_beside(path: Path) -> Path:
    return path.with_name(f"{TEMPORARY}{uuid4().hex}")


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _check_absent(path: Path) -> None:
    # A dangling link exists, too.
    if os.path.lexists(path):
        raise InputError.at(path, "is there already", "remove it, or choose another folder")


def _opened(path: Path, flags: int) -> int:
    """Open a file, but through no link, and without waiting for the other end of a pipe."""
    return os.open(path, flags | _NO_FOLLOW, 0o666)


def _check_no_links(folder: Path) -> None:
    if found := next(_links(folder), None):
        remedy = "put in its place what it leads to, or link the whole folder"
        raise InputError.at(found, "is a link, through which nothing is written", remedy)


def _links(folder: str | Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                yield entry.path
            elif entry.is_dir():
                yield from _links(entry.path)


def _lock_file(lock: Path, subject: Path, *, wait: bool = False) -> IO[str]:
    """A lock's file, opened and locked until it is closed."""
    while True:
        if lock.is_symlink():
            problem = "is a link, through which nothing is written"
            raise InputError.at(lock, problem, "remove it")
        file = os.fdopen(_opened(lock, os.O_WRONLY | os.O_CREAT), "w")
        if not _is_ours(file, wait=wait):
            file.close()
            problem = "is being written by another process"
            raise InputError.at(subject, problem, "wait for it, or choose another place")
        # The process that held the lock may have removed the file that was opened here.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                return file
        file.close()


def _is_ours(file: IO[str], *, wait: bool) -> bool:
    """Lock a file; whoever asks :func:`is_locked` has it for a moment, which is waited for."""
    for pause in (0.0, 0.05, 0.1, 0.2):
        sleep(pause)
        if lock_descriptor(file.fileno(), blocking=wait):
            return True
    return False


def _replace_folder(temporary: Path, path: Path) -> None:
    for written in (*temporary.rglob("*"), temporary):
        _flush(written)
    if path.exists():
        shutil.rmtree(path)
    temporary.replace(path)
    _flush(path.parent)


def _flush(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def without_nan(value: Any) -> Any:
    """A JSON value with null in the place of NaN."""
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, Mapping):
        return {str(key): without_nan(inner) for key, inner in value.items()}
    return [without_nan(inner) for inner in value] if isinstance(value, list | tuple) else value
