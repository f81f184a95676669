"""A folder that is put in place when it is whole, and taken away when it is not."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.store.writing import writing


@contextmanager
def unfinished(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` that takes its place when the block ends without error.

    What a killed process left of such a folder is removed by the next one that wants it.

    Raises:
        RefusedError: If the target is there already, if another process is about to make it, or
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
        raise RefusedError(Complaint(str(target), "is there already", remedy))


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
        raise RefusedError(Complaint(str(target), problem, "wait for it")) from error
