"""What may be said of plugins and of tuning; without pydantic, so that listing need not wait."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from numbers import Integral, Real
from typing import Any

METRICS = ("recall_at_1", "recall_at_5", "recall_at_10", "mean_reciprocal_rank")
"""What tuning may make large, the usual one first."""

MOST_STEPS = 100_000_000  # more than any training takes
UNASKED_STEPS = 10_000_000  # that a command does without --yes: at 100 a second, 28 hours
MOST_ROWS = 1_000_000  # items of a batch, or that a plugin holds
MOST_UNITS = 65_536  # numbers of a vector, a layer, a table of centroids
MOST_WEIGHT = 1e9  # of a loss; beyond it float32 sees nothing else


def amount(number: float) -> str:
    """A number as it is told to people.

    >>> amount(1e8), amount(0.5), amount(2)
    ('100,000,000', '0.5', '2')
    """
    whole = isfinite(number) and number == int(number) and abs(number) < 1e15
    return f"{int(number):,}" if whole else f"{number:g}"


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number within a range."""

    least: float = 0  # the smallest; with `above` the bound that must be exceeded
    above: bool = False  # whether `least` itself is too small
    whole: bool = False  # whether only whole numbers will do
    most: float | None = None  # the largest, if there is one
    search: "Range | None" = None  # where tuning looks for the best value; None leaves it as it is

    def tuned(self, low: float, high: float, *, log: bool = True) -> "Number":
        """The same range, searched by tuning between two values; see :class:`Range`."""
        return replace(self, search=Range(low, high, log=log))

    def remedy(self, value: Any) -> str:
        """What to give instead of a value; empty if the value lies in the range.

        >>> Number(least=2, whole=True).remedy(1)
        'give at least 2'
        """
        if not self._has_type(value):
            return "give a whole number" if self.whole else "give a number"
        if not isfinite(value):
            return "give a finite number"
        if value < self.least or (self.above and value == self.least):
            return f"give {'more than' if self.above else 'at least'} {amount(self.least)}"
        if self.most is not None and value > self.most:
            return f"give at most {amount(self.most)}"
        return ""

    def _has_type(self, value: Any) -> bool:
        return isinstance(value, Integral if self.whole else Real) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Words:
    """One of some words."""

    known: tuple[str, ...]

    def remedy(self, value: Any) -> str:
        """What to give instead of a value; empty if it is one of the words.

        >>> Words(("left", "right")).remedy("up")
        'give "left" or "right"'
        """
        if isinstance(value, str) and value in self.known:
            return ""
        return f"give {' or '.join(json.dumps(word) for word in self.known)}"


@dataclass(frozen=True, slots=True)
class Range:
    """Where a parameter's best value is looked for; with ``log``, equal factors are equally far."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True, slots=True)
class PluginRule:
    """What a strategy file may say of a plugin, known without importing it."""

    # Each parameter's `Number` or `Words`, or a type as pydantic understands it. Defaults live in
    # the plugin's constructor.
    parameters: Mapping[str, Any]
    needs_memory: bool = False  # whether the strategy must have a `[memory]` table
    unless: str = ""  # a parameter that lets the plugin do without it where a file sets it above 0
    # Whether joint and cumulative training, which protect nothing, take it too.
    for_bounds: bool = False

    def asks_for_memory(self, said: Mapping[str, Any]) -> bool:
        """Whether a plugin with these parameters is of no use without a memory."""
        return self.needs_memory and not said.get(self.unless)
