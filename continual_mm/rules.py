"""What strategy files may say of plugins; without pydantic, so that listing need not wait."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number within a range.

    Attributes:
        least: The smallest; with ``above`` the bound that must be exceeded.
        above: Whether ``least`` itself is too small.
        whole: Whether only whole numbers will do.
    """

    least: float = 0
    above: bool = False
    whole: bool = False


@dataclass(frozen=True, slots=True)
class PluginRule:
    """What a strategy file may say of a plugin, known without importing it.

    Attributes:
        parameters: Each parameter's :class:`Number`, or a type as pydantic understands it. Defaults
            live in the plugin's constructor.
        needs_memory: Whether the strategy must have a ``[memory]`` table.
    """

    parameters: Mapping[str, Any]
    needs_memory: bool = False
