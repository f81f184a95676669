"""Errors of input: every problem at once, each with place, value and remedy."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Self
from warnings import warn


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with what a user gave."""

    place: str  # from the outside in: `"scenarios/mine.toml, [[stage]] 2, add"`
    message: str  # what is wrong there, with the value in it
    remedy: str = ""  # what to write instead; may be empty where the message says it

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" + (f"; {self.remedy}" if self.remedy else "")


class InputError(ValueError):
    """Input that cannot be used; ``problems`` holds everything found wrong with it."""

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = (
            (problems,) if isinstance(problems, Problem) else tuple(problems)
        )
        super().__init__("\n".join(str(problem) for problem in self.problems))

    @classmethod
    def at(cls, place: object, message: str, remedy: str = "") -> Self:
        """The error of a single problem; ``place`` may be a path."""
        return cls(Problem(str(place), message, remedy))

    @property
    def complaints(self) -> tuple[Problem, ...]:
        """The old name of ``problems``."""
        warn("InputError.complaints is now problems", DeprecationWarning, stacklevel=2)
        return self.problems

    def __reduce__(self) -> tuple[type["InputError"], tuple[tuple[Problem, ...]]]:
        """For other processes; as any other error it would be made again from its message."""
        return InputError, (self.problems,)


class Problems(list[Problem]):
    """Problems found one after another, to be raised together."""

    @contextmanager
    def collected(self, place: str = "") -> Iterator[None]:
        """End the block at an InputError and add its problems, ``place`` put before theirs."""
        try:
            yield
        except InputError as error:
            before = f"{place}, " if place else ""
            self += [replace(one, place=f"{before}{one.place}") for one in error.problems]

    def check(self) -> None:
        """Raise an InputError with all of them, if there are any."""
        if self:
            raise InputError(self)


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line; its type if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def suggestion(word: str, known: Iterable[str]) -> str:
    """Begin a remedy with the known word that was probably meant; empty if none is near."""
    close = get_close_matches(word, list(known), n=1)
    return f"did you mean '{close[0]}'? " if close else ""


SHOWN = 5  # rows or ids that a problem spells out before it only counts the rest


def first_few(names: Sequence[str], shown: int = SHOWN) -> str:
    """Join names with commas, by default at most five of them, as in ``a, b, c and 2 more``."""
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")


_SHOWN = 200


def printable(name: str, most: int = _SHOWN) -> str:
    r"""A name out of a file on one line, cut, and without what could steer a terminal.

    >>> print(printable("red: \x1b[31m\n"))
    red: \x1b[31m\n
    """
    plain = (one if one.isprintable() else ascii(one)[1:-1] for one in name[:most])
    return "".join(plain) + ("..." if len(name) > most else "")
