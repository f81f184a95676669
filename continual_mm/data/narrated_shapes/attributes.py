"""What an item is: its attributes, which modality shows them, and how noisy they are.

Every two modalities share attributes that the third lacks, so that training one pair alone gives
an encoder no reason to keep what only another pair needs:

=====================  =====  =====  ====
attribute              video  audio  text
=====================  =====  =====  ====
shape and instrument   x      x      x
size                   x      x      x
vertical course        x      x      x
number of beats        x      x      x
colour                 x             x
horizontal course      x             x
height                 x      x
rhythm                 x      x
articulation                  x      x
loudness                      x      x
=====================  =====  =====  ====

The constants from ``OMISSION`` to ``LOUDNESS_JITTER`` set how hard the dataset is; changing one
changes the items, and therefore ``card.VERSION``.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Value = TypeVar("Value")

SAMPLE_RATE = 16_000  # audio samples per second
SLOT_SAMPLES = 1_280
"""Audio samples per slot (80 ms); a slot is one frame of video and may hold one beat."""

INSTRUMENTS = {
    "circle": "flute",
    "square": "trumpet",
    "triangle": "violin",
    "diamond": "bell",
    "cross": "drum",
    "ring": "organ",
}
"""What each shape plays."""
SHAPES = tuple(INSTRUMENTS)
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
ARTICULATIONS = ("short", "long", "trembling")
LOUDNESSES = ("soft", "moderate", "loud")
COURSES = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""Compass directions as (right, up)."""
RHYTHMS = (
    "x....x....",
    ".x......x...",
    "..x..x.....",
    "x........x..",
    "x...x...x...",
    "x.x....x...",
    ".x...x.x....",
    "x..x.....x.",
    "x..x..x..x..",
    "x.x.x....x..",
    "x..x.x.x..",
    ".x.x...x.x..",
    "x.x.x.x.x...",
    "x.x..x.x..x.",
    "x..x.x.x.x..",
    ".x.x.x..x.x.",
)
"""Beats (x) and rests, a character per slot: two to five beats, never in adjacent slots."""
LEVELS = 5  # number of sizes and of heights, evenly spaced from 0 to 1
OMISSION = 0.04  # probability that a caption leaves out any one of its optional phrases
PIXEL_NOISE = 0.04  # standard deviation of the noise on every pixel, of a brightness range of 1
SPECKS = 13  # coloured distractor pixels per frame
SEEN_JITTER = 0.01  # standard deviation of size and height as seen, of a range of 1
HEARD_JITTER = 0.01  # standard deviation of size and height as heard, of a range of 1
SIGNAL_TO_NOISE = (20.0, 24.0)
"""Range of the ratio of a moderate note to the background noise, in dB."""
LOUDNESS_JITTER = 0.5  # standard deviation of the loudness, in dB


@dataclass(frozen=True, slots=True)
class Attributes:
    """What one item shows, plays and says; values are those of the constants above."""

    shape: str
    colour: str
    # Going up is heard as notes that rise, going down as notes that fall; left and right are
    # not heard.
    course: tuple[int, int]
    size: float  # in [0, 1]; the larger the shape, the lower its notes
    height: float  # in [0, 1], of the middle of the path; the higher, the higher a steady whistle
    rhythm: str  # when the shape flashes and a note begins
    articulation: str
    loudness: str

    @property
    def instrument(self) -> str:
        """What every shape of this kind plays."""
        return INSTRUMENTS[self.shape]

    @property
    def slots(self) -> int:
        """Duration of the clip: 10 to 12 slots."""
        return len(self.rhythm)

    @property
    def beats(self) -> tuple[int, ...]:
        """Slots in which the shape flashes and a note begins, ascending."""
        return tuple(slot for slot, sign in enumerate(self.rhythm) if sign == "x")


def pick(values: tuple[Value, ...], rng: np.random.Generator) -> Value:
    """Draw one of some values, each as likely."""
    return values[int(rng.integers(len(values)))]


def draw(rng: np.random.Generator) -> Attributes:
    """Draw an item: every attribute uniformly and independently of the others."""
    levels = tuple(level / (LEVELS - 1) for level in range(LEVELS))
    return Attributes(
        shape=pick(SHAPES, rng),
        colour=pick(COLOURS, rng),
        course=pick(COURSES, rng),
        size=pick(levels, rng),
        height=pick(levels, rng),
        rhythm=pick(RHYTHMS, rng),
        articulation=pick(ARTICULATIONS, rng),
        loudness=pick(LOUDNESSES, rng),
    )


def perceived(value: float, jitter: float, rng: np.random.Generator) -> float:
    """Disturb a value in [0, 1] by normal noise, and keep it in [0, 1]."""
    return float(np.clip(value + jitter * rng.standard_normal(), 0.0, 1.0))
