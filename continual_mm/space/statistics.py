"""What features are standardised by before a space sees them; imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

CONSTANT = 1e-6
"""A feature whose spread is at most this share of its root mean square counts as constant.

Float32 keeps seven digits, so a smaller spread is rounding, and dividing by it makes noise.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """What features are standardised by."""

    mean: NDArray[np.float64]  # (features,) float64
    # (features,) what distances from the mean are multiplied by: one over the standard
    # deviation, 0 for a feature that is constant.
    rate: NDArray[np.float64]

    @classmethod
    def from_moments(cls, mean: NDArray[np.float64], spread: NDArray[np.float64]) -> Self:
        """Of means and standard deviations, (features,) each."""
        constant = spread <= CONSTANT * np.hypot(mean, spread)
        return cls(mean, np.divide(1.0, spread, out=np.zeros_like(spread), where=~constant))

    @classmethod
    def from_json(cls, described: Mapping[str, Any], size: int) -> Self:
        """Read what :meth:`as_json` gave; a ValueError if it is not of so many features."""
        mean, rate = (np.array(described[key], dtype=np.float64) for key in ("mean", "rate"))
        if mean.shape != (size,) or rate.shape != (size,):
            shapes = f"shapes {mean.shape}, {rate.shape}"
            raise ValueError(f"{size} features have statistics of {shapes}")
        if not np.isfinite([mean, rate]).all():
            raise ValueError("statistics are not finite")
        return cls(mean, rate)

    def as_json(self) -> dict[str, list[float]]:
        """Means and rates, to the last bit."""
        return {"mean": self.mean.tolist(), "rate": self.rate.tolist()}


def same(first: Statistics | None, second: Statistics | None) -> bool:
    """Whether two are the same but for last bits; None stands for features as they are."""
    if first is None or second is None:
        return first is second
    pairs = (first.mean, second.mean), (first.rate, second.rate)
    return all(
        one.shape == two.shape and np.allclose(one, two, rtol=1e-6, atol=0) for one, two in pairs
    )
