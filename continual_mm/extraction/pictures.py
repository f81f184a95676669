"""Which pictures of a clip are wanted: at which moments, and how large."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""(height, width, 3) RGB."""

Smooth = Literal["bilinear", "bicubic"]


@dataclass(frozen=True, slots=True)
class Pictures:
    """Which pictures a tower wants.

    Attributes:
        rate: Pictures per second, each from the middle of its share of time; unless ``count``.
        count: Pictures per clip, at equal distances.
        side: Pixels of the shorter side, or (height, width) whatever the proportions; None for as
            they are.
        smooth: How pixels are mixed where pictures are resized.
        antialias: Whether, where they become smaller, all pixels are looked at. Networks for film
            were trained without.
    """

    rate: float = 1.0
    count: int | None = None
    side: int | tuple[int, int] | None = None
    smooth: Smooth = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        """Refuse what names no moment.

        Raises:
            ValueError: Unless the rate is finite and all numbers are above 0.
        """
        if not 0 < self.rate < math.inf:
            raise ValueError(f"rate {self.rate} is not above 0 pictures per second")
        if self.count is not None and not _is_count(self.count):
            raise ValueError(f"count {self.count} is not at least 1 picture")
        sides = self.side if isinstance(self.side, tuple) else (self.side,)
        if not all(side is None or _is_count(side) for side in sides):
            raise ValueError(f"side {self.side} is not at least 1 pixel")

    @property
    def when(self) -> dict[str, float | int]:
        """What of it decides on the moments, as a job keeps it."""
        return {"rate": self.rate} if self.count is None else {"count": self.count}

    def moments(self, start: float, end: float) -> NDArray[np.float64]:
        """Seconds at which a clip is looked at; at least one.

        >>> Pictures().moments(2.0, 5.2).tolist()
        [2.5, 3.5, 4.5]
        >>> Pictures(count=2).moments(0.0, 1.0).tolist()
        [0.25, 0.75]
        """
        if self.count is not None:
            steps, apart = self.count, (end - start) / self.count
        elif (fitting := math.ceil((end - start) * self.rate - 0.5)) >= 1:
            steps, apart = fitting, 1 / self.rate
        else:
            steps, apart = 1, end - start
        return np.array([start + (step + 0.5) * apart for step in range(steps)])

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of what becomes of a picture of some size.

        >>> Pictures(side=64).size(288, 360)
        (64, 80)
        """
        if self.side is None:
            return height, width
        if isinstance(self.side, tuple):
            return self.side
        shorter = min(height, width)
        return self.side * height // shorter, self.side * width // shorter


def _is_count(value: object) -> bool:
    """Whether something, of whatever a user wrote, is a whole number above 0."""
    return isinstance(value, int) and value > 0
