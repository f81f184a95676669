"""What may be said of plugins and of tuning; without pydantic, so that listing need not wait."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

METRICS = ("recall_at_1", "recall_at_5", "recall_at_10", "mean_reciprocal_rank")
"""What tuning may make large, the usual one first."""


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number within a range.

    Attributes:
        least: The smallest; with ``above`` the bound that must be exceeded.
        above: Whether ``least`` itself is too small.
        whole: Whether only whole numbers will do.
        most: The largest, if there is one.
    """

    least: float = 0
    above: bool = False
    whole: bool = False
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Range:
    """Where a parameter's best value is looked for; both ends are tried as well.

    Attributes:
        low: The smallest value.
        high: The largest.
        log: Whether equal factors are equally far apart, instead of equal differences.
    """

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True, slots=True)
class PluginRule:
    """What a strategy file may say of a plugin, known without importing it.

    Attributes:
        parameters: Each parameter's :class:`Number`, or a type as pydantic understands it. Defaults
            live in the plugin's constructor.
        needs_memory: Whether the strategy must have a ``[memory]`` table.
        unless: A parameter that lets the plugin do without it where a file sets it above 0.
        for_bounds: Whether joint and cumulative training, which protect nothing, take it too.
    """

    parameters: Mapping[str, Any]
    needs_memory: bool = False
    unless: str = ""
    for_bounds: bool = False

    def asks_for_memory(self, said: Mapping[str, Any]) -> bool:
        """Whether a plugin with these parameters is of no use without a memory."""
        return self.needs_memory and not said.get(self.unless)
