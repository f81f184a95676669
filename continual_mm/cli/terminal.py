"""How things look on a terminal, and as plain lines where there is none."""

import codecs
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, TypeVar

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from continual_mm.system.errors import InputError, printable

if TYPE_CHECKING:
    from continual_mm.definitions.arrivals import Arrival
    from continual_mm.definitions.scenario import Training


class _Notes(Console):
    """What is told beside results; where it cannot be written, the work goes on without."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, if that is possible."""
        with suppress(OSError):
            super().print(*objects, **options)


# Names and files are shown as they are: [space] is no markup and :key: no picture of a key.
_plain: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}
_console = partial(Console, **_plain)
out = _console(soft_wrap=True)
err = _Notes(soft_wrap=True, stderr=True, **_plain)

UNLIMITED = 10_000  # width of what no terminal shows: a line for a program is never broken
GAP = 2  # spaces between two columns
LAST = 20  # width that the last column of a table has at least, if there is so much in it
INTERRUPTED = 130  # exit code of a process that Ctrl-C ended
MOST_PROBLEMS = 50  # lines of a refusal
LONGEST = 2000  # characters of a line
_SPELT = "continual-mm"  # the name of what writes characters that an encoding lacks

_Row = TypeVar("_Row", bound=Sequence[str])


def print_text(sentence: str, *, style: str = "") -> None:
    """A sentence, broken between words on a terminal."""
    width = None if out.is_terminal else UNLIMITED
    _console(width=width).print(printable(sentence, LONGEST), style=style)


def print_rows(
    headings: Sequence[str], rows: Iterable[_Row], *, title: str = "", broken: int = -1
) -> None:
    """A table, its columns aligned; without frames, so that it can be cut and grepped.

    On a terminal one column, by default the last one, is broken where it is long. Where the others
    alone are too wide, the terminal breaks the lines: half a number would be a wrong one.
    """
    lines: list[Sequence[str]] = [headings, *rows]
    cells = [tuple(printable(cell, LONGEST) for cell in row) for row in lines]
    if title:
        print_text(title, style="italic")
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, no_wrap=heading != headings[broken])
    for row in cells[1:]:
        table.add_row(*row)
    # More than the last column would have to be broken where a terminal is narrower.
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    last = widths.pop(broken)
    narrowest = sum(widths) + GAP * len(widths) + min(last, LAST)
    fits = out.is_terminal and narrowest <= out.width
    _console(width=None if fits else UNLIMITED).print(table)


def print_stages(arrivals: "Iterable[Arrival]") -> None:
    """What arrives at each stage and what is trained."""
    rows = [
        (
            str(arrival.stage + 1),
            ", ".join(modality.name for modality in arrival.added),
            ", ".join(map(str, arrival.trained)) or "no pair",
            _length(arrival.training),
            arrival.dataset,
        )
        for arrival in arrivals
    ]
    headings = ("stage", "arrives", "trains", "steps", "dataset")
    shown = len(headings) if len({row[-1] for row in rows}) > 1 else len(headings) - 1
    print_rows(headings[:shown], [row[:shown] for row in rows])


def _length(training: "Training") -> str:
    """Steps of a stage, and the epochs that they are; epochs alone while the items are unknown."""
    if not training.epochs:
        return f"{training.steps}"
    epochs = f"{training.epochs} epochs"
    return f"{training.steps} ({epochs})" if training.steps else epochs


def print_refusal(error: InputError) -> None:
    """What was found wrong, a line each, on standard error; of very many the first, and a count."""
    for problem in error.problems[:MOST_PROBLEMS]:
        say(" ".join(str(problem).splitlines()))
    if len(error.problems) > MOST_PROBLEMS:
        more = len(error.problems) - MOST_PROBLEMS
        say(f"and {more:,} more; they may have one cause")


def say(sentence: str) -> None:
    """One line on standard error, cut where it is endless, and nothing that steers a terminal."""
    err.print(f"continual-mm: {printable(sentence, LONGEST)}")


def write_anything() -> None:
    """Let standard output and error write what their encoding lacks in another way."""
    codecs.register_error(_SPELT, _spelt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=_SPELT)


def _spelt(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeEncodeError) and error.object[error.start] == "\N{PLUS-MINUS SIGN}":
        return "+-", error.start + 1
    return codecs.backslashreplace_errors(error)


@contextmanager
def stoppable(kept: str) -> Iterator[None]:
    """A block that Ctrl-C ends with a line that says what is ``kept``."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise EndedError(f"stopped; {kept}", INTERRUPTED) from error


class EndedError(Exception):
    """Ends the command with a line on standard error and an exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
