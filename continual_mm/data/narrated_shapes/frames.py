"""RGB frames: a flashing shape that moves over a patterned, noisy background."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.narrated_shapes import attributes

SIDE = 32  # height and width of a frame, in pixels

Plane = NDArray[np.floating[Any]]

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
_PATTERNS = ("plain", "stripes", "bars", "checks", "slants")  # distractors: in no caption
_RADIUS = (4.0, 8.5)  # pixels, of the smallest and the largest shape
_TRAVEL = 5.5  # pixels from the middle of the path to either end
_WANDER = 1.0  # pixels by which the middle of a path misses the frame's, to the left or right
_HEIGHT = 5.0  # pixels by which the middle of a path lies above or below the frame's, at most
_LIGHTNESS = 0.5  # of the background
_CONTRAST = 0.05  # of the background's pattern
_PERIOD = (6.0, 9.0)  # pixels after which a pattern repeats
_DIM = 0.4  # opacity of the shape between two flashes
_COLOUR_JITTER = 0.06  # standard deviation of each of red, green and blue
_LEAN = 0.12  # radians, standard deviation
_ROWS, _COLUMNS = np.mgrid[:SIDE, :SIDE].astype(np.float32) - np.float32((SIDE - 1) / 2)


def frames(item: attributes.Attributes, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Render an item as (slots, 32, 32, 3) frames."""
    cover = _cover(item, rng)[..., None]
    colour = np.asarray(_COLOURS[item.colour]) + _COLOUR_JITTER * rng.standard_normal(3)
    ground = _ground(rng)[..., None]
    image = ground + cover * (colour.astype(np.float32) - ground)
    image += np.float32(attributes.PIXEL_NOISE) * rng.standard_normal(image.shape, dtype=np.float32)
    row, column = rng.integers(SIDE, size=(2, item.slots, attributes.SPECKS))
    image[np.arange(item.slots)[:, None], row, column] = rng.random(
        (item.slots, attributes.SPECKS, 3)
    )
    return np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)


def _ground(rng: np.random.Generator) -> Plane:
    """Lightness of the background at every pixel."""
    pattern = attributes.pick(_PATTERNS, rng)
    place = np.stack([_COLUMNS, _ROWS]) / rng.uniform(*_PERIOD) + rng.random((2, 1, 1))
    across, down = 2 * np.pi * place
    wave = {
        "plain": np.zeros_like(across),
        "stripes": np.sin(across),
        "bars": np.sin(down),
        "checks": np.sin(across) * np.sin(down),
        "slants": np.sin((across + down) / math.sqrt(2)),
    }[pattern]
    lightness: Plane = (_LIGHTNESS + _CONTRAST * np.sign(wave)).astype(np.float32)
    return lightness


def _cover(item: attributes.Attributes, rng: np.random.Generator) -> Plane:
    """Opacity of the shape at every pixel of every frame, in [0, 1]."""
    smallest, largest = _RADIUS
    radius = smallest + (largest - smallest) * attributes.perceived(
        item.size, attributes.SEEN_JITTER, rng
    )
    aside = rng.uniform(-_WANDER, _WANDER)
    below = _HEIGHT * (1 - 2 * attributes.perceived(item.height, attributes.SEEN_JITTER, rng))
    steps = np.linspace(-_TRAVEL, _TRAVEL, item.slots)[:, None, None]
    right, up = np.asarray(item.course) / np.hypot(*item.course)
    across = _COLUMNS - (aside + right * steps)
    down = _ROWS - (below - up * steps)
    lean = _LEAN * rng.standard_normal()
    turned = (
        np.cos(lean) * across - np.sin(lean) * down,
        np.sin(lean) * across + np.cos(lean) * down,
    )
    unit_across, unit_down = (axis.astype(np.float32) / np.float32(radius) for axis in turned)
    pixels_inside = np.float32(radius) * _DEPTHS[item.shape](unit_across, unit_down)
    opacity = np.full((item.slots, 1, 1), _DIM, dtype=np.float32)
    opacity[list(item.beats)] = 1
    # Half a pixel of edge on either side of the outline keeps it smooth.
    cover: Plane = opacity * np.clip(pixels_inside + np.float32(0.5), 0, 1)
    return cover


def _cross(across: Plane, down: Plane) -> Plane:
    x, y = np.abs(across), np.abs(down)
    lying, standing = np.minimum(1.2 - x, 0.4 - y), np.minimum(1.2 - y, 0.4 - x)
    depth: Plane = np.maximum(lying, standing)
    return depth


def _triangle(across: Plane, down: Plane) -> Plane:
    # Its base, and a slanted side that symmetry makes two.
    side = 0.75 - math.sqrt(3) / 2 * np.abs(across) + 0.5 * down
    depth: Plane = np.minimum(0.75 - down, side)
    return depth


# How far a point lies inside a shape of radius 1; negative outside. The areas are alike.
_DEPTHS: dict[str, Callable[[Plane, Plane], Plane]] = {
    "circle": lambda across, down: 1 - np.hypot(across, down),
    "square": lambda across, down: 0.88 - np.maximum(np.abs(across), np.abs(down)),
    "triangle": _triangle,
    "diamond": lambda across, down: (1.25 - np.abs(across) - np.abs(down)) / math.sqrt(2),
    "cross": _cross,
    "ring": lambda across, down: 0.25 - np.abs(np.hypot(across, down) - 1),
}
