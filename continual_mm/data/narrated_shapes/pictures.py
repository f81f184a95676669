"""RGB frames: a flashing shape that moves over a patterned, noisy background."""

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.narrated_shapes.attributes import (
    PIXEL_NOISE,
    SEEN_JITTER,
    Attributes,
    noticed,
    perceived,
)

SIDE = 32
"""Height and width of a frame, in pixels."""

Plane = NDArray[np.float32]

_COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.10, 0.10),
    "orange": (1.00, 0.50, 0.05),
    "yellow": (0.95, 0.90, 0.10),
    "green": (0.10, 0.75, 0.15),
    "cyan": (0.10, 0.80, 0.85),
    "blue": (0.10, 0.20, 0.95),
    "purple": (0.50, 0.10, 0.75),
    "pink": (1.00, 0.40, 0.75),
}
_RADIUS = (4.0, 8.5)  # pixels, of the smallest and the largest shape
_TRAVEL = 5.5  # pixels from the middle of the path to either end
_WANDER = 3.0  # pixels by which the middle of a path misses the frame's, to the left or right
_HEIGHT = 5.0  # pixels by which the middle of a path lies above or below the frame's
_SPECKS = (3.0, 60.0)  # coloured specks per frame, from the least to the most sparkle
_TILT = 0.12  # radians by which a shape leans
_LIGHTNESS = (0.2, 0.8)  # of the darkest and the lightest background
_CONTRAST = 0.10  # of the pattern
_PERIOD = (6.0, 9.0)  # pixels after which a pattern repeats
_DIM = 0.4  # opacity of the shape between two flashes
_COLOUR_JITTER = 0.06
_ROWS, _COLUMNS = np.mgrid[:SIDE, :SIDE].astype(np.float32) - np.float32((SIDE - 1) / 2)


def frames(item: Attributes, dice: np.random.Generator) -> NDArray[np.uint8]:
    """Film an item, as (slots, 32, 32, 3)."""
    cover = _cover(item, dice)[..., None]
    colour = np.asarray(_COLOURS[item.colour]) + _COLOUR_JITTER * dice.standard_normal(3)
    ground = _ground(item, dice)[..., None]
    film = ground + cover * (colour.astype(np.float32) - ground)
    film += np.float32(PIXEL_NOISE) * dice.standard_normal(film.shape, dtype=np.float32)
    fewest, most = _SPECKS
    specks = round(fewest * (most / fewest) ** perceived(item.sparkle, SEEN_JITTER, dice))
    where = dice.integers(SIDE, size=(2, item.slots, specks))
    film[np.arange(item.slots)[:, None], where[0], where[1]] = dice.random((item.slots, specks, 3))
    return np.rint(255 * np.clip(film, 0, 1)).astype(np.uint8)


def _ground(item: Attributes, dice: np.random.Generator) -> Plane:
    darkest, lightest = _LIGHTNESS
    lightness = darkest + (lightest - darkest) * perceived(item.shade, SEEN_JITTER, dice)
    across, down = (
        2 * np.pi * (np.stack([_COLUMNS, _ROWS]) / dice.uniform(*_PERIOD) + dice.random((2, 1, 1)))
    )
    relief = {
        "plain": np.zeros_like(across),
        "stripes": np.sign(np.sin(across)),
        "bars": np.sign(np.sin(down)),
        "checks": np.sign(np.sin(across) * np.sin(down)),
        "waves": np.sign(np.sin((across + down) / np.sqrt(2))),
    }[item.pattern]
    return (lightness + _CONTRAST * relief).astype(np.float32)


def _cover(item: Attributes, dice: np.random.Generator) -> Plane:
    """Opacity of the shape at every pixel of every frame, in [0, 1]."""
    smallest, largest = _RADIUS
    radius = smallest + (largest - smallest) * perceived(item.size, SEEN_JITTER, dice)
    middle = (
        dice.uniform(-_WANDER, _WANDER),
        _HEIGHT * (1 - 2 * perceived(item.height, SEEN_JITTER, dice)),
    )
    steps = np.linspace(-_TRAVEL, _TRAVEL, item.slots, dtype=np.float32)[:, None, None]
    right, up = np.asarray(item.course) / np.hypot(*item.course)
    across = _COLUMNS - np.float32(middle[0]) - np.float32(right) * steps
    down = _ROWS - np.float32(middle[1]) + np.float32(up) * steps
    lean = _TILT * dice.standard_normal()
    cosine, sine = np.float32(np.cos(lean)), np.float32(np.sin(lean))
    inside = _depth(
        item.shape, cosine * across - sine * down, sine * across + cosine * down, radius
    )
    opacity = np.full((item.slots, 1, 1), _DIM, dtype=np.float32)
    opacity[list(noticed(item.beats, dice))] = 1
    return opacity * np.clip(inside + np.float32(0.5), 0, 1)


def _depth(shape: str, across: Plane, down: Plane, radius: float) -> Plane:
    """How many pixels a point lies inside a shape; negative outside. All shapes have like areas."""
    x, y = np.abs(across), np.abs(down)
    size = np.float32(radius)
    if shape == "circle":
        return size - np.hypot(across, down)
    if shape == "ring":
        return np.float32(0.25) * size - np.abs(np.hypot(across, down) - size)
    if shape == "square":
        return np.float32(0.88) * size - np.maximum(x, y)
    if shape == "diamond":
        return (np.float32(1.25) * size - x - y) / np.float32(np.sqrt(2))
    if shape == "cross":
        arm, width = np.float32(1.2) * size, np.float32(0.4) * size
        return np.maximum(
            np.minimum(arm - x, width - y),
            np.minimum(arm - y, width - x),
        )
    # An upright triangle: its base, and a slanted side that symmetry makes two.
    base = np.float32(0.75) * size - down
    side = np.float32(0.75) * size - x * np.float32(np.sqrt(3) / 2) + down * np.float32(0.5)
    return np.minimum(base, side)
