"""Collects everything that is wrong with one source of columns, rows named."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from continual_mm.system.errors import Problem, Problems, first_few


class Findings:
    """What was found wrong with one file or one set of arrays, to be raised all at once."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.ids: NDArray[np.str_] = np.empty(
            0, dtype=np.str_
        )  # of items; rows are named with them
        self.faulty: set[str] = set()  # columns, of which nothing more is concluded
        self._problems = Problems()

    def about_source(self, problem: str, remedy: str = "") -> None:
        """Add a problem about the whole."""
        self._problems.append(Problem(self.source, problem, remedy))

    def about(self, column: str, problem: str, remedy: str = "") -> None:
        """Add a problem about one column, which counts as faulty from here on."""
        self.faulty.add(column)
        self._problems.append(Problem(f"{self.source}, column {column!r}", problem, remedy))

    def about_rows(self, column: str, problem: str, rows: Iterable[int], remedy: str = "") -> None:
        """Add a problem about some rows of a column, if there are any."""
        named = [
            f"{row} ({str(self.ids[row])!r})" if row < len(self.ids) else str(row) for row in rows
        ]
        if named:
            what = "row" if len(named) == 1 else "rows"
            self.about(column, f"{problem} in {len(named)} {what}: {first_few(named)}", remedy)

    def refuse(self) -> None:
        """Raise everything that was found, if anything."""
        self._problems.check()


class FaultError(Exception):
    """What is wrong with one column of one record; with the record itself if the name is empty."""

    def __init__(self, column: str, problem: str, remedy: str = "") -> None:
        super().__init__(column, problem, remedy)
        self.column, self.problem, self.remedy = column, problem, remedy


def sound_text(column: str, value: object) -> str:
    """A text that can be stored."""
    if not isinstance(value, str):
        raise FaultError(column, f"is {type(value).__name__}, no text", "give a str")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise FaultError(column, f"is no valid text ({error.reason})") from error
    if "\0" in value:
        raise FaultError(column, "contains a NUL character", "remove it")
    return str(value)
