"""Files that are either whole or not there, and JSON without surprises."""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from continual_mm.system.errors import InputError, Problem

LOCK = "run.lock"
"""The file in a run's folder that the process at work holds."""
TEMPORARY = ".writing-"
"""How the names of files begin that are not complete yet."""


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _flush(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def written_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its place when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=TEMPORARY))
    try:
        yield temporary
        for file in temporary.iterdir():
            _flush(file)
        _flush(temporary)
        temporary.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
        _flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def clear_temporary(folder: Path) -> None:
    """Remove what a killed process left half-written in a folder."""
    for path in folder.glob(f"{TEMPORARY}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the only process inside the block; the lock goes with the process, however it ends.

    Raises:
        InputError: If another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            problem = "another process is at work in this folder"
            remedy = "wait for it, or choose another folder"
            raise InputError(Problem(str(path.parent), problem, remedy)) from error
        yield


def held(path: Path) -> bool:
    """Whether a process is inside a block that :func:`locked` guards."""
    try:
        with path.open("r") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _flush(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people: indented, sorted as given, NaN as null."""
    with written(path) as temporary:
        text = json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        InputError: If the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        remedy = "choose another folder, or remove this one to begin anew"
        raise InputError(Problem(str(path), f"cannot be read: {error}", remedy)) from error


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    digest = sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def writing(target: str) -> Iterator[None]:
    """A block that writes to a target, and does nothing else that the system may refuse.

    Raises:
        InputError: If it does.
    """
    try:
        yield
    except OSError as error:
        problem = f"cannot be written: {error.strerror or error}"
        raise InputError(Problem(target, problem, "make room, or choose another place")) from error


@contextmanager
def unfinished(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` that takes its place when the block ends without error.

    What a killed process left of such a folder is removed by the next one that wants it.

    Raises:
        InputError: If the target is there already, if another process is about to make it, or
            if nothing can be written there.
    """
    _check_free(target)
    with writing(str(target)):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(_lock_of(target), os.O_CREAT | os.O_RDWR, 0o644)
    try:
        _hold(lock, target)
        yield from _made(target)
    finally:
        os.close(lock)


def _check_free(target: Path) -> None:
    # A link that leads nowhere is there, too.
    if os.path.lexists(target):
        remedy = "remove it, or choose another folder"
        raise InputError(Problem(str(target), "is there already", remedy))


def _made(target: Path) -> Iterator[Path]:
    folder = target.with_name(f".{target.name}.unfinished")
    try:
        # Whoever held the lock before may have made it just now.
        _check_free(target)
        shutil.rmtree(folder, ignore_errors=True)
        with writing(str(target)):
            folder.mkdir()
        yield folder
        with writing(str(target)):
            folder.replace(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _lock_of(target).unlink(missing_ok=True)


def _lock_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.lock")


def _hold(lock: int, target: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever held it before may have removed the file that was opened here.
        if not os.path.samestat(os.fstat(lock), _lock_of(target).stat()):
            raise BlockingIOError
    except (BlockingIOError, FileNotFoundError) as error:
        problem = "is being written by another process"
        raise InputError(Problem(str(target), problem, "wait for it")) from error
