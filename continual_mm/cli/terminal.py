"""How things look on a terminal, and as plain lines where there is none."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from continual_mm.system.errors import InputError

if TYPE_CHECKING:
    from continual_mm.definitions.arrivals import Arrival
    from continual_mm.definitions.scenario import Training

# Names and files are shown as they are: [space] is no markup and :key: no picture of a key.
_console = partial(Console, markup=False, emoji=False, highlight=False)
out = _console(soft_wrap=True)
err = _console(soft_wrap=True, stderr=True)

UNLIMITED = 10_000  # width of what no terminal shows: a line for a program is never broken
GAP = 2  # spaces between two columns
LAST = 20  # width that the last column of a table has at least, if there is so much in it
INTERRUPTED = 130  # exit code of a process that Ctrl-C ended

_Row = TypeVar("_Row", bound=Sequence[str])


def print_rows(headings: Sequence[str], rows: Iterable[_Row], *, title: str = "") -> None:
    """A table, its columns aligned; without frames, so that it can be cut and grepped.

    On a terminal the last column is broken where it is long. Where the others alone are too wide,
    the terminal breaks the lines: half a number would be a wrong one.
    """
    cells = [tuple(headings), *map(tuple, rows)]
    table = Table(box=None, title=title or None, title_justify="left", pad_edge=False)
    for heading in headings:
        table.add_column(heading, no_wrap=heading != headings[-1])
    for row in cells[1:]:
        table.add_row(*row)
    # More than the last column would have to be broken where a terminal is narrower.
    *widths, last = (max(map(cell_len, column)) for column in zip(*cells, strict=True))
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
        )
        for arrival in arrivals
    ]
    print_rows(("stage", "arrives", "trains", "steps"), rows)


def _length(training: "Training") -> str:
    """Steps of a stage, and the epochs that they are; epochs alone while the items are unknown."""
    if not training.epochs:
        return f"{training.steps}"
    epochs = f"{training.epochs} epochs"
    return f"{training.steps} ({epochs})" if training.steps else epochs


def print_refusal(error: InputError) -> None:
    """Everything that was found wrong, a line each, on standard error."""
    for problem in error.problems:
        err.print(f"continual-mm: {' '.join(str(problem).splitlines())}")


class EndedError(Exception):
    """Ends the command with a line on standard error and an exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
