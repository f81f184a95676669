"""How far something is: bars on a terminal, nothing where there is none."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from continual_mm.terminal import err

_Thing = TypeVar("_Thing")


def bars(console: Console = err) -> Progress:
    """Bars that are gone at the end; each task is added with its name, ``total`` and ``unit``.

    Args:
        console: Where to.
    """
    name = TextColumn("{task.description}", markup=False)
    unit = TextColumn("{task.fields[unit]}")
    return _shown(console, name, BarColumn(), MofNCompleteColumn(), unit, TimeRemainingColumn())


@contextmanager
def counting(things: Iterable[_Thing], unit: str) -> Iterator[Iterable[_Thing]]:
    """Count things as they are taken, on standard error.

    Args:
        things: Any number of them.
        unit: What they are called.
    """
    columns = (SpinnerColumn(), MofNCompleteColumn(), TextColumn(unit), TimeElapsedColumn())
    with _shown(err, *columns) as shown:
        yield shown.track(things, total=None, description="")


def _shown(console: Console, *columns: ProgressColumn) -> Progress:
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
