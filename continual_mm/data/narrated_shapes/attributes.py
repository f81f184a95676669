"""What an item is: its attributes, who perceives them, and how hard they are to perceive.

Every two modalities share attributes that the third lacks, each worth about nine bits or more, so
that any pair can find one item among several hundred and training one pair alone gives an encoder
no reason to keep what only another pair needs:

=========================  =====  =====  ====
attribute                  video  audio  text
=========================  =====  =====  ====
shape, colour, pattern       x             x
size, height, shade,
sparkle, rhythm              x      x
instrument, articulation,
loudness, ambience                  x      x
course                       x     x/2     x
number of beats              x      x      x
=========================  =====  =====  ====

Audio has only the vertical half of the course. Every perception is disturbed by the knobs below;
they set the dataset's difficulty, and changing one changes ``card.VERSION``.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Value = TypeVar("Value")

SAMPLE_RATE = 16_000
"""Audio samples per second."""
SLOT_SAMPLES = 1_280
"""Audio samples per slot (80 ms); a slot is one frame of video and may hold one beat."""

SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
PATTERNS = ("plain", "stripes", "bars", "checks", "waves")
INSTRUMENTS = {
    "circle": "flute",
    "square": "trumpet",
    "triangle": "violin",
    "diamond": "bell",
    "cross": "drum",
    "ring": "organ",
}
ARTICULATIONS = ("short", "long", "trembling")
LOUDNESSES = ("soft", "moderate", "loud")
AMBIENCES = ("quiet", "rain", "wind", "engine", "murmur")
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
"""Beats (x) and rests, one character per slot; two to five beats, each as often."""
LEVELS = 5
"""Size, height, shade and sparkle each take this many values, evenly spaced in [0, 1]."""

OMISSION = 0.12
"""Probability that a caption leaves out one of its optional phrases."""
PIXEL_NOISE = 0.05
"""Standard deviation of the noise on every pixel, of a brightness range of 1."""
SEEN_JITTER = 0.01
"""Standard deviation of size, height, shade and sparkle as seen, of a range of 1."""
HEARD_JITTER = 0.01
"""Standard deviation of size, height, shade and sparkle as heard, of a range of 1."""
SIGNAL_TO_NOISE = (20.0, 24.0)
"""Range of the ratio of the notes at moderate loudness to the background noise, in dB."""
LOUDNESS_JITTER = 1.0
"""Standard deviation of the loudness, in dB."""
MISSED_BEAT = 0.0
"""Probability that a beat is not seen, and independently that it is not heard."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """One item's attributes.

    Attributes:
        shape: One of ``SHAPES``.
        colour: One of ``COLOURS``.
        pattern: One of ``PATTERNS``, on the background.
        course: One of ``COURSES``; up is heard as a rising pitch within each note.
        size: In [0, 1]; the larger the shape, the lower the notes.
        height: In [0, 1]; the higher the path, the higher a steady whistle.
        sparkle: In [0, 1]; the more coloured specks, the more crackle.
        shade: In [0, 1]; the lighter the background, the brighter the noise (white; dark is red).
        rhythm: One of ``RHYTHMS``: when the shape flashes and a note begins.
        articulation: One of ``ARTICULATIONS``.
        loudness: One of ``LOUDNESSES``.
        ambience: One of ``AMBIENCES``.
    """

    shape: str
    colour: str
    pattern: str
    course: tuple[int, int]
    size: float
    height: float
    sparkle: float
    shade: float
    rhythm: str
    articulation: str
    loudness: str
    ambience: str

    @property
    def instrument(self) -> str:
        """What every shape of this kind plays."""
        return INSTRUMENTS[self.shape]

    @property
    def slots(self) -> int:
        """How long the clip is."""
        return len(self.rhythm)

    @property
    def beats(self) -> tuple[int, ...]:
        """The slots in which the shape flashes and a note begins."""
        return tuple(slot for slot, sign in enumerate(self.rhythm) if sign == "x")


def pick(values: tuple[Value, ...], dice: np.random.Generator) -> Value:
    """Draw one of some values, each as likely."""
    return values[int(dice.integers(len(values)))]


def draw(dice: np.random.Generator) -> Attributes:
    """Draw an item: every attribute uniformly and independently of the others."""
    return Attributes(
        shape=pick(SHAPES, dice),
        colour=pick(COLOURS, dice),
        pattern=pick(PATTERNS, dice),
        course=pick(COURSES, dice),
        size=_level(dice),
        height=_level(dice),
        sparkle=_level(dice),
        shade=_level(dice),
        rhythm=pick(RHYTHMS, dice),
        articulation=pick(ARTICULATIONS, dice),
        loudness=pick(LOUDNESSES, dice),
        ambience=pick(AMBIENCES, dice),
    )


def perceived(value: float, jitter: float, dice: np.random.Generator) -> float:
    """Disturb a value in [0, 1] by normal noise, and keep it in [0, 1]."""
    return float(np.clip(value + jitter * dice.standard_normal(), 0.0, 1.0))


def noticed(beats: tuple[int, ...], dice: np.random.Generator) -> tuple[int, ...]:
    """Leave out each beat with probability ``MISSED_BEAT``."""
    return tuple(beat for beat in beats if dice.random() >= MISSED_BEAT)


def _level(dice: np.random.Generator) -> float:
    return int(dice.integers(LEVELS)) / (LEVELS - 1)
