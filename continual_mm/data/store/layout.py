"""What a store is told about its modalities before the first item, and what an item may hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from continual_mm.modality import Modality


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """A modality whose steps are words of one table; items hold the words' rows in it.

    Attributes:
        modality: Its shape is (time, features); the time is worked out.
        vectors: (words, features) floats, memory-mapped or not.
        blank: Whether a row of zeros stands behind them, for items that are filled up with it.
    """

    modality: Modality
    vectors: NDArray[Any]
    blank: bool = False

    @property
    def count(self) -> int:
        """Rows of the table."""
        return len(self.vectors) + self.blank


@dataclass(frozen=True, slots=True)
class Windows:
    """A modality that is cut out of recordings; items hold a :class:`Window` each.

    Attributes:
        modality: For ``max`` a vector of all the parts' features. Else its shape is (time, ...),
            and windows are cut behind that time.
        parts: Columns of the recordings -> features per step. More than one only for ``max``.
        reduce: ``max`` is HowTo100M's recipe: the largest value of each feature within the window,
            each part then brought to length 1 and put behind the other; zeros where a part's
            window is empty. None gives the window itself.
    """

    modality: Modality
    parts: Mapping[str, int]
    reduce: Literal["max"] | None = None


Layout = tuple[Modality | Words | Windows, ...]
"""What the items of a store have. The time in a :class:`Modality`'s shape is worked out."""


@dataclass(frozen=True, slots=True)
class Window:
    """Where in a recording an item lies.

    Attributes:
        recording: The number that the writer gave the recording.
        spans: (begin, end) in steps for each part. What reaches beyond the recording is cut.
    """

    recording: int
    spans: tuple[tuple[int, int], ...]
