"""Depth maps of point clouds: what a cloud gives instead of frames, raw or for other towers."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from continual_mm.data.solids.shapes import rotation
from continual_mm.definitions.modality import Kind
from continual_mm.preparation.extraction.towers import (
    CLOUD,
    Features,
    Setting,
    VideoTower,
    check_count,
)
from continual_mm.rendering.depth import (
    SIX_VIEWS,
    Mode,
    normalise_depth,
    render_depth,
    share_outside,
    unit_ball,
)

_PUBLISHED_TEN = (
    (0.0, 90.0, 180.0, 270.0, 225.0, 225.0, 315.0, 315.0, 0.0, 0.0),
    (0.0, 0.0, 0.0, 0.0, -45.0, 45.0, -45.0, 45.0, -90.0, 90.0),
)
_VIEWS = {"six": SIX_VIEWS, "ten": _PUBLISHED_TEN}
_TURNS = {"none": np.eye(3), "modelnet": rotation(0, -90.0) @ rotation(1, -90.0)}
"""What clouds are turned by first; ModelNet's stand on another axis."""


class DepthTower:
    """(views, size, size) depth maps of a cloud, normalised, near dark and far light.

    ``points`` of it are rendered at most, as discs of ``radius`` where a picture goes from -1 to 1.
    """

    signal: Literal["cloud"] = "cloud"
    kind = Kind.FRAMES

    def __init__(
        self,
        *,
        size: int = 224,
        radius: float = 0.02,
        points: int = 1024,
        views: str = "six",
        turn: str = "none",
        mode: Mode = "range",
        distance: float = 1.0,
    ) -> None:
        check_count("size", size, most=4096)
        check_count("points", points, most=10_000_000)
        for name, value, known in (("views", views, _VIEWS), ("turn", turn, _TURNS)):
            if value not in known:
                raise ValueError(f"{name} {str(value)[:20]!r} is none of {', '.join(known)}")
        self.points, self.size = points, size
        self._radius, self._views, self._turn = radius, _VIEWS[views], _TURNS[turn]
        self._mode: Mode = mode
        self._distance = distance
        self.features = size * size
        self.description = f"depth maps of {size} x {size} pixels from {views} sides"
        self.settings: Mapping[str, Setting] = {
            "size": size,
            "radius": radius,
            "points": points,
            "views": views,
            "turn": turn,
            "mode": mode,
            "distance": distance,
        }

    def encode(self, points: NDArray[np.float64]) -> Features:
        """(N, 3) -> (views, size, size)."""
        (elevation, azimuth), ball = self._views, self._ball(points)
        maps = render_depth(
            ball,
            elevation=elevation,
            azimuth=azimuth,
            distance=self._distance,
            size=self.size,
            radius=self._radius,
        )
        found: Features = normalise_depth(maps, mode=self._mode).numpy()
        return found

    def outside(self, points: NDArray[np.float64]) -> float:
        """Share of points that no map shows."""
        elevation, azimuth = self._views
        return share_outside(
            self._ball(points), elevation=elevation, azimuth=azimuth, distance=self._distance
        )

    def _ball(self, points: NDArray[np.float64]) -> torch.Tensor:
        return unit_ball(torch.from_numpy(points @ self._turn)).float()


_SIDE = 224  # pixels of a depth map before a tower for frames has its size
_POINTS = 1024


class ThroughFrames:
    """A tower for frames that sees a cloud's depth maps from six sides, in grey, as frames."""

    signal: Literal["cloud"] = "cloud"
    points = _POINTS

    def __init__(self, tower: VideoTower) -> None:
        self._tower = tower
        self._maps = DepthTower(size=max(tower.sampling.size(_SIDE, _SIDE)))
        self.kind, self.features = tower.kind, tower.features
        self.description = f"depth maps through {tower.description}"
        self.settings: Mapping[str, Setting] = {**tower.settings, "of": CLOUD}

    def encode(self, points: NDArray[np.float64]) -> Features:
        """(N, 3) -> (steps, features)."""
        maps = self._maps.encode(points)
        height, width = self._tower.sampling.size(_SIDE, _SIDE)
        down, along = (maps.shape[1] - height) // 2, (maps.shape[2] - width) // 2
        grey = np.rint(255 * maps[:, down : down + height, along : along + width])
        frames = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=3)
        starts = range(0, len(frames), self._tower.block)
        blocks = (frames[start : start + self._tower.block] for start in starts)
        return np.concatenate([self._tower.encode(block) for block in blocks])

    def outside(self, points: NDArray[np.float64]) -> float:
        """Share of points that no map shows."""
        return self._maps.outside(points)
