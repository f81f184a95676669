"""What a tower is: something that turns one kind of signal of a clip into features."""

from collections.abc import Mapping
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from continual_mm.extraction.pictures import Pictures
from continual_mm.modality import Kind

Features = NDArray[np.float32]
Setting = str | int | float | bool | None

RANDOM = "random"
"""Weights that nobody trained, drawn with fixed dice: for trying things out."""


class Described(Protocol):
    """What all towers say of themselves.

    Attributes:
        kind: What their features are: vectors, or which sequence.
        features: Values of a vector, or of a step of a sequence.
        told: What they are, for people; says so if their weights are random.
        settings: All that decides what they give, as a job keeps it.
    """

    kind: Kind
    features: int
    told: str
    settings: Mapping[str, Setting]


class PictureTower(Described, Protocol):
    """Describes pictures, some at a time.

    Attributes:
        wanted: Which pictures.
        block: How many at a time; always the same number but for a clip's last block, so that
            features never depend on what else is extracted.
    """

    signal: Literal["pictures"]
    wanted: Pictures
    block: int

    def describe(self, pictures: NDArray[np.uint8]) -> Features:
        """(n, height, width, 3) RGB -> (steps, features), or (n, features)."""


class SoundTower(Described, Protocol):
    """Describes sound.

    Attributes:
        sample_rate: Samples per second that it wants.
    """

    signal: Literal["sound"]
    sample_rate: int

    def describe(self, wave: NDArray[np.float32]) -> Features:
        """(samples,) -> (steps, features)."""


class TextTower(Described, Protocol):
    """Describes text."""

    signal: Literal["text"]

    def describe(self, text: str) -> Features | None:
        """(words, features) or (features,); None if it knows no word of it."""


Tower = PictureTower | SoundTower | TextTower


class Vectors(Protocol):
    """Word vectors, such as those of GoogleNews.

    Attributes:
        name: What they are; a job goes on with vectors of the same name only.
        features: Numbers of each.
        fingerprint: Another one whenever a vector is another one; what is made of text is then made
            anew.
    """

    name: str
    features: int
    fingerprint: str

    def __contains__(self, word: object) -> bool:
        """Whether a word, as it is written, has a vector."""

    def vector(self, word: str) -> NDArray[np.floating]:
        """(features,)."""


def probe(tower: Tower) -> None:
    """Have a tower describe a little nothing, so that what cannot work fails before hours of work.

    Raises:
        RuntimeError: Or whatever else a network says of sizes that it cannot take.
    """
    if tower.signal == "pictures":
        height, width = tower.wanted.size(256, 256)
        tower.describe(np.zeros((1, height, width, 3), dtype=np.uint8))
    elif tower.signal == "sound":
        tower.describe(np.zeros(1, dtype=np.float32))
    else:
        tower.describe("a")
