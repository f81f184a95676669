"""How many of a thing have passed: a bar on a terminal, nothing where there is none."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from continual_mm.terminal import err

_Thing = TypeVar("_Thing")


@contextmanager
def counting(things: Iterable[_Thing], unit: str) -> Iterator[Iterable[_Thing]]:
    """Count things as they are taken, on standard error.

    Args:
        things: Any number of them.
        unit: What they are called.
    """
    columns = (SpinnerColumn(), MofNCompleteColumn(), TextColumn(unit), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bars:
        yield bars.track(things, total=None, description="")
