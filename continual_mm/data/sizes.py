"""How large the values of a modality are, gathered block by block."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.standardise import CONSTANT

FAR = 100.0
"""Times that values may be larger than others before it is told."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the items that were looked at, as they are in the file.

    A norm is the Euclidean length of a time step, over an item its mean.

    Attributes:
        smallest: Of all values.
        largest: Of all values.
        rms: Root mean square of all values.
        norm: Median of the items' norms, without items of nothing but zeros.
        norms: The same for each split; None for a split without items.
        usual: Norm divided by the square root of the features: a value of usual size.
        furthest: The value farthest from 0, without its sign.
        furthest_row: The item that has it, as a row of the dataset; None if there is none.
        loud: Items with more than :data:`FAR` times the norm.
        faint: Items, not all zero, with less than a part in :data:`FAR` of it.
        constant: Features that never change, of two items or more.
        zero: Items of which every value is 0.
        broken: Items with values that are not finite, which count for none of the sizes.
    """

    smallest: float = 0.0
    largest: float = 0.0
    rms: float = 0.0
    norm: float = 0.0
    norms: tuple[float | None, float | None, float | None] = (None, None, None)
    usual: float = 0.0
    furthest: float = 0.0
    furthest_row: int | None = None
    loud: int = 0
    faint: int = 0
    constant: int = 0
    zero: int = 0
    broken: int = 0


class Totals:
    """What is gathered of one modality.

    Args:
        features: Per step.
    """

    def __init__(self, features: int) -> None:
        self._low = np.full(features, np.inf)
        self._high = np.full(features, -np.inf)
        self._squares, self._values = 0.0, 0
        self._norms: list[NDArray[np.float64]] = [np.empty(0)]
        self._splits: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        self._zero = self._broken = 0
        self._furthest: tuple[float, int | None] = (0.0, None)

    def add(
        self,
        steps: NDArray[np.float32],
        valid: NDArray[np.int64],
        rows: NDArray[np.int64],
        split: NDArray[np.int64],
    ) -> None:
        """Take a block.

        Args:
            steps: (n, time, features), zero behind the valid steps.
            valid: (n,) valid steps.
            rows: (n,) of the dataset.
            split: (n,) of each.
        """
        finite = np.isfinite(steps).all(axis=(1, 2))
        self._broken += int((~finite).sum())
        if not finite.all():
            steps, valid, rows, split = steps[finite], valid[finite], rows[finite], split[finite]
        if not len(steps):
            return
        shown = np.arange(steps.shape[1]) < valid[:, None]
        real = steps[shown].astype(np.float64)
        self._low = np.minimum(self._low, real.min(axis=0))
        self._high = np.maximum(self._high, real.max(axis=0))
        self._squares += float((real**2).sum())
        self._values += real.size
        lengths = np.zeros(shown.shape)
        lengths[shown] = np.linalg.norm(real, axis=1)
        self._norms.append(lengths.sum(axis=1) / valid)
        self._splits.append(split)
        self._zero += int((~steps.any(axis=(1, 2))).sum())
        peaks = np.abs(steps).max(axis=(1, 2))
        place = int(peaks.argmax())
        if peaks[place] > self._furthest[0]:
            self._furthest = float(peaks[place]), int(rows[place])

    def sizes(self) -> Sizes:
        """What all blocks have in common."""
        if not self._values:
            return Sizes(broken=self._broken)
        every, splits = np.concatenate(self._norms), np.concatenate(self._splits)
        norms, splits = every[every > 0], splits[every > 0]
        norm = _median(norms) or 0.0
        training, validation, test = (_median(norms[splits == each]) for each in range(3))
        furthest, row = self._furthest
        # As for standardising: less than rounding leaves of a spread is none.
        edge = CONSTANT * np.maximum(abs(self._high), abs(self._low))
        flat = int((self._high - self._low <= edge).sum())
        return Sizes(
            smallest=float(self._low.min()),
            largest=float(self._high.max()),
            rms=float(np.sqrt(self._squares / self._values)),
            norm=norm,
            norms=(training, validation, test),
            usual=norm / len(self._low) ** 0.5,
            furthest=furthest,
            furthest_row=row,
            loud=int((norms > FAR * norm).sum()),
            faint=int((norms < norm / FAR).sum()),
            constant=flat if len(every) > 1 else 0,
            zero=self._zero,
            broken=self._broken,
        )


def _median(norms: NDArray[np.float64]) -> float | None:
    return float(np.median(norms)) if len(norms) else None
