"""How published files become items: as the published programs do it, or with their bugs fixed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from continual_mm.system.errors import InputError, Problem

Mode = Literal["reference", "robust"]
"""``reference`` gives what the published program gives, its mistakes included; ``robust`` fixes
them. The functions that take a mode say what it changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Settings of all items; the defaults are those of MCN's released command.

    Attributes:
        mode: Whether published mistakes are kept.
        min_time: Seconds up to which a clip takes in the captions around its own.
        audio_frames: Spectrogram frames that a clip is cut to, 100 a second.
        max_words: Known words that a text is cut to.
        rate_2d: Rows of 2D features per second.
        rate_3d: Rows of 3D features per second.

    Raises:
        InputError: If a number is out of range.
    """

    mode: Mode = "robust"
    min_time: float = 10.0
    audio_frames: int = 1000
    max_words: int = 20
    rate_2d: float = 1.0
    rate_3d: float = 1.5

    def __post_init__(self) -> None:
        if self.mode not in ("reference", "robust"):
            problem = f"there is no mode {self.mode!r}"
            raise InputError(Problem("recipe", problem, "use 'robust' or 'reference'"))
        for name in ("min_time", "audio_frames", "max_words", "rate_2d", "rate_3d"):
            value = getattr(self, name)
            least = 0 if name == "min_time" else 1e-6
            if not least <= value < float("inf"):
                raise InputError(Problem("recipe", f"{name} is {value}", "give more than 0"))

    @property
    def reference(self) -> bool:
        """Whether items are what the published program makes of them."""
        return self.mode == "reference"


class Report:
    """The items that were left out.

    Attributes:
        skip: Whether to go on without an item that cannot be read.
        skipped: Everything that was wrong with items left out, in their order.
        tried: Items that were read or left out.
    """

    def __init__(self, *, skip: bool = False) -> None:
        self.skip = skip
        self.skipped: list[Problem] = []
        self.tried = 0

    @contextmanager
    def item(self) -> Iterator[None]:
        """A block that reads one item: with ``skip``, its InputError is listed instead of raised.

        Raises:
            InputError: Without ``skip``.
        """
        self.tried += 1
        try:
            yield
        except InputError as error:
            if not self.skip:
                raise
            self.skipped.extend(error.problems)

    def leave_out(self, problem: Problem) -> None:
        """List a part of an item that is left out, where the rest of it stays.

        Raises:
            InputError: With the problem, without ``skip``.
        """
        if not self.skip:
            raise InputError(problem)
        self.skipped.append(problem)
