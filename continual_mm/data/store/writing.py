"""A disk that is full or refuses to be written, told as a refusal."""

from collections.abc import Iterator
from contextlib import contextmanager

from continual_mm.complaint import Complaint, RefusedError


@contextmanager
def writing(target: str) -> Iterator[None]:
    """A block that writes to a target, and does nothing else that the system may refuse.

    Raises:
        RefusedError: If it does.
    """
    try:
        yield
    except OSError as error:
        problem = f"cannot be written: {error.strerror or error}"
        raise RefusedError(
            Complaint(target, problem, "make room, or choose another place")
        ) from error
