"""What a process that does runs tells the one that started it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from continual_mm.complaint import Complaint


@dataclass(frozen=True, slots=True)
class Told:
    """Something that a listener of the run in progress would hear.

    Attributes:
        event: The listener's method.
        given: Its arguments by position.
        named: Its arguments by name.
    """

    event: str
    given: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refused:
    """The run's dataset cannot be used."""

    complaints: tuple[Complaint, ...]
