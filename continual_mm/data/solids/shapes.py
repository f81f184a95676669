"""Solids as triangles, points on their surfaces, and how they stand."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.solids.card import CLASSES

Array = NDArray[np.float64]

PROPORTIONS: Mapping[str, float] = MappingProxyType({"flat": 0.55, "even": 1.0, "tall": 1.8})
"""What the height is multiplied by before a solid is scaled to the unit ball."""

POSES = ("standing", "lying")  # a lying solid has fallen over to the front

_SPREAD = 0.08  # standard deviation of the logarithm of each axis' length
_TURN = 25.0  # degrees to either side that a solid is turned about the vertical
_TILT = 5.0  # degrees, standard deviation, about the other axes


@dataclass(frozen=True, slots=True)
class Solid:
    """What one item shows; ``shape``, ``proportion`` and ``pose`` are what its caption may say."""

    shape: str
    proportion: str
    pose: str
    turn: Array  # (3, 3) of row vectors, with lengths and pose in it

    @property
    def label(self) -> int:
        """The class: its place in :data:`CLASSES`."""
        return CLASSES.index(self.shape)


def draw(rng: np.random.Generator) -> Solid:
    """Draw a solid: shape, proportion and pose uniformly and independently."""
    shape = CLASSES[int(rng.integers(len(CLASSES)))]
    proportion = tuple(PROPORTIONS)[int(rng.integers(len(PROPORTIONS)))]
    pose = POSES[int(rng.integers(len(POSES)))]
    lengths = np.exp(_SPREAD * rng.standard_normal(3)) * [1.0, PROPORTIONS[proportion], 1.0]
    fallen = rotation(0, 90.0) if pose == "lying" else np.eye(3)
    about = rotation(1, rng.uniform(-_TURN, _TURN))
    for axis in (0, 2):
        about = about @ rotation(axis, _TILT * rng.standard_normal())
    return Solid(shape, proportion, pose, np.diag(lengths) @ fallen @ about)


def rotation(axis: int, degrees: float) -> Array:
    """(3, 3) for row vectors: turns the first of the other two axes towards the second."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turned = np.eye(3)
    one, other = [each for each in range(3) if each != axis]
    turned[[one, one, other, other], [one, other, one, other]] = [c, s, -s, c]
    return turned


def surface(solid: Solid, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """(count, 3) points on a solid's surface, evenly by area, and (count, 3) unit normals.

    The points have mean 0, and the farthest is at a distance of 1. A normal is that of a triangle,
    on either side of it.
    """
    points, normals = points_on(_SHAPES[solid.shape]() @ solid.turn, count, rng)
    points = points - points.mean(0)
    return points / np.linalg.norm(points, axis=1).max(), normals


def points_on(triangles: Array, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """(count, 3) points on (n, 3, 3) triangles, evenly by area, and the normals of these."""
    across = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    doubled = np.linalg.norm(across, axis=1)  # areas
    chosen = rng.choice(len(triangles), size=count, p=doubled / doubled.sum())
    first, second = rng.random((2, count, 1))
    folded = first + second > 1
    first, second = np.where(folded, 1 - first, first), np.where(folded, 1 - second, second)
    a, b, c = triangles[chosen].transpose(1, 0, 2)
    return a + first * (b - a) + second * (c - a), across[chosen] / doubled[chosen, None]


def _revolved(*profile: tuple[float, float], segments: int = 24) -> Array:
    """(triangles, 3, 3) of a line of (radius, height) that goes around the vertical."""
    angles = 2 * np.pi * (np.arange(segments + 1) + 0.5) / segments
    radius, height = np.array(profile).T[:, :, None]
    around = np.stack(
        [
            radius * np.cos(angles),
            np.broadcast_to(height, (len(radius), segments + 1)),
            radius * np.sin(angles),
        ],
        axis=-1,
    )
    low, high = around[:-1], around[1:]
    corners = np.stack([low[:, :-1], low[:, 1:], high[:, 1:], high[:, :-1]], axis=-2)
    triangles = np.concatenate([corners[..., [0, 1, 2], :], corners[..., [0, 2, 3], :]])
    triangles = triangles.reshape(-1, 3, 3)
    # Where the line begins or ends on the axis, half of the triangles have no area.
    across = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    kept: Array = triangles[np.linalg.norm(across, axis=1) > 1e-9]
    return kept


def _boxes(*ends: tuple[float, float, float, float, float, float]) -> Array:
    """(triangles, 3, 3) of boxes, each from (x, y, z) to (x, y, z)."""
    half = 0.5**0.5  # of a diagonal
    square = _revolved((0, 0), (half, 0), (half, 1), (0, 1), segments=4) + np.array([0.5, 0, 0.5])
    boxes = [square * (np.subtract(each[3:], each[:3])) + each[:3] for each in ends]
    return np.concatenate(boxes)


def _arc(
    radius: float, start: float, end: float, centre: float = 0.0, steps: int = 12
) -> list[tuple[float, float]]:
    """Points of (radius, height) on a circle, by angles in degrees from its lowest point."""
    angles = np.radians(np.linspace(start, end, steps + 1))
    return [(abs(centre + radius * np.sin(a)), -radius * np.cos(a)) for a in angles]


_SHAPES: Mapping[str, Callable[[], Array]] = MappingProxyType(
    {
        "ball": lambda: _revolved(*_arc(1.0, 0, 180)),
        "cube": lambda: _boxes((-0.8, -0.8, -0.8, 0.8, 0.8, 0.8)),
        "cylinder": lambda: _revolved((0, -1), (0.75, -1), (0.75, 1), (0, 1)),
        "cone": lambda: _revolved((0, -1), (0.9, -1), (0, 1)),
        "ring": lambda: _revolved(*_arc(0.28, 0, 360, centre=0.8, steps=16)),
        "pyramid": lambda: _revolved((0, -1), (1.1, -1), (0, 1), segments=4),
        "diamond": lambda: _revolved((0, -1), (1, 0), (0, 1), segments=4),
        "bowl": lambda: _revolved(*_arc(1.0, 0, 90), *_arc(0.85, 90, 0)),
        "tube": lambda: _revolved((0.7, -1), (0.7, 1), (0.5, 1), (0.5, -1), (0.7, -1)),
        "cross": lambda: _boxes(
            (-1, -0.25, -0.25, 1, 0.25, 0.25),
            (-0.25, -1, -0.25, 0.25, 1, 0.25),
            (-0.25, -0.25, -1, 0.25, 0.25, 1),
        ),
        "stairs": lambda: _boxes(
            (-0.8, -0.8, -0.8, 0.8, -0.27, 0.8),
            (-0.8, -0.27, -0.8, 0.8, 0.27, 0.27),
            (-0.8, 0.27, -0.8, 0.8, 0.8, -0.27),
        ),
        "table": lambda: _boxes(
            (-1, 0.6, -0.8, 1, 0.8, 0.8),
            *((x, -0.8, z, x + 0.2, 0.6, z + 0.2) for x in (-0.95, 0.75) for z in (-0.75, 0.55)),
        ),
    }
)
