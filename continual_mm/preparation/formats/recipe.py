"""How published files become items: as the published programs do it, or with their bugs fixed."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

from continual_mm.system.errors import InputError, Problems

Mode = Literal["reference", "robust"]
"""``reference`` gives what the published program gives, its mistakes included; ``robust`` fixes
them. The functions that take a mode say what it changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Settings of all items; the defaults are those of MCN's released command."""

    mode: Mode = "robust"
    min_time: float = 10.0  # seconds up to which a clip takes in the captions around its own
    audio_frames: int = 1000  # spectrogram frames that a clip is cut to, 100 a second
    max_words: int = 20  # known words that a text is cut to
    rate_2d: float = 1.0  # rows of 2D features per second
    rate_3d: float = 1.5

    def __post_init__(self) -> None:
        if self.mode not in ("reference", "robust"):
            problem = f"there is no mode {self.mode!r}"
            raise InputError.at("recipe", problem, "use 'robust' or 'reference'")
        for name in ("min_time", "audio_frames", "max_words", "rate_2d", "rate_3d"):
            value = getattr(self, name)
            least = 0 if name == "min_time" else 1e-6
            if not least <= value < float("inf"):
                raise InputError.at("recipe", f"{name} is {value}", "give more than 0")

    @property
    def reference(self) -> bool:
        """Whether items are what the published program makes of them."""
        return self.mode == "reference"


def skipping(left_out: Problems | None) -> AbstractContextManager[None]:
    """A block whose InputError ends it and goes to ``left_out``, or is raised if that is None."""
    return nullcontext() if left_out is None else left_out.collected()
