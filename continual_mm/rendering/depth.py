"""Depth maps of a point cloud: cameras that look at the origin, discs for points, a z-buffer.

Cameras and discs are those of CLIP2Point (Huang et al. 2023), which imitates distance by scaling
and has no perspective.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from continual_mm.system.arguments import checked_arguments
from continual_mm.system.errors import InputError

EMPTY = -1.0  # what a pixel without a point has in a z-buffer
BACKGROUND = 1.0  # and in a normalised depth map
NEAR_TO_FAR = 200 / 255
"""Value of what is farthest in a normalised depth map, in which the nearest is 0."""

SIX_VIEWS = ((0.0, 0.0, 0.0, 0.0, 90.0, -90.0), (0.0, 90.0, 180.0, 270.0, 0.0, 180.0))
"""Elevations and azimuths, in degrees, of the views that CLIP2Point classifies by."""

Degrees = float | Sequence[float]
Mode = Literal["range", "published"]


def look_at(elevation: float, azimuth: float) -> Tensor:
    """(3, 3) float64 rotation of a camera that looks at the origin, for row vectors.

    ``points @ look_at(...)`` has +x to the left, +y up, and +z into the picture. ``elevation`` and
    ``azimuth`` are in degrees; the camera stands at ``(cos e sin a, sin e, cos e cos a)``. At the
    poles it keeps the up that it comes with from a smaller elevation.

    >>> look_at(0.0, 0.0).tolist()
    [[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, -1.0]]
    """
    e, a = math.radians(elevation), math.radians(azimuth)
    z = -torch.tensor([math.cos(e) * math.sin(a), math.sin(e), math.cos(e) * math.cos(a)]).double()
    behind = -1.0 if math.cos(e) < -1e-6 else 1.0
    x = behind * torch.tensor([-math.cos(a), 0.0, math.sin(a)], dtype=torch.float64)
    y = torch.linalg.cross(z, x)
    return torch.stack([x, y, z], dim=1) + 0.0  # which makes 0 of -0


def seen_from(points: Tensor, *, elevation: Degrees, azimuth: Degrees, distance: float) -> Tensor:
    """(views, N, 3) points in the systems of cameras: x to the left, y up, z the depth.

    Args:
        points: (N, 3); in the unit ball all of them are inside the picture at a distance of 1.
        elevation: Degrees above the horizon, one for each view.
        azimuth: Degrees around the vertical, as many.
        distance: Above 0; points appear smaller by this factor, and are so far away.

    Raises:
        InputError: If points are no (N, 3) finite numbers, or other arguments are out of range.
    """
    check_points(points)
    angles = [
        [float(each)] if isinstance(each, (int, float)) else [*each]
        for each in (elevation, azimuth)
    ]
    if len(angles[0]) != len(angles[1]) or not angles[0]:
        problem = f"{len(angles[0])} elevations and {len(angles[1])} azimuths"
        raise InputError.at("views", problem, "give as many of both, one for each view")
    if not all(math.isfinite(each) for each in [*angles[0], *angles[1]]):
        raise InputError.at("views", "an angle is not finite", "give degrees")
    if not 0 < distance < math.inf:
        raise InputError.at("distance", f"{distance} is not above 0", "1 shows the unit ball")
    turns = torch.stack([look_at(e, a) for e, a in zip(*angles, strict=True)])
    seen = points / distance @ turns.to(points)
    return seen + points.new_tensor([0.0, 0.0, distance])


def check_points(points: Tensor) -> None:
    """Refuse what is no cloud of finite points; an empty one is a cloud."""
    if points.dim() != 2 or points.shape[1] != 3 or not points.is_floating_point():
        problem = f"are {tuple(points.shape)} of {points.dtype}"
        raise InputError.at("points", problem, "give (N, 3) floats")
    wrong = (~points.isfinite().all(1)).nonzero()
    if len(wrong):
        problem = f"row {int(wrong[0])} is not finite"
        raise InputError.at("points", problem, "leave such points out: they would vanish unseen")


def unit_ball(points: Tensor) -> Tensor:
    """(N, 3) points moved to mean 0 and scaled to a largest distance of 1 from it."""
    centred = points - points.mean(0)
    found: Tensor = centred / centred.norm(dim=1).max().clamp(min=1e-12)
    return found


def z_buffer(seen: Tensor, *, size: int, radius: float) -> tuple[Tensor, Tensor]:
    """The nearest depth at every pixel, and the point that it is of.

    Pixel (j, i) has its centre at ``x = 1 - (2 i + 1) / size``, ``y = 1 - (2 j + 1) / size``; a
    point covers those whose centres are less than ``radius`` away. Points with z < 0 are behind the
    camera; those beside the picture are not in it.

    Args:
        seen: (views, N, 3), as :func:`seen_from` gives them.
        size: Pixels of each side.
        radius: Of a point's disc, where the picture goes from -1 to 1.

    Returns:
        (views, size, size) depths, :data:`EMPTY` where there is none; and (views, size, size) the
        lowest index of a point of that depth, -1 where there is none.
    """
    if not 1 <= size <= 4096:
        raise InputError.at("size", f"{size} is not from 1 to 4096", "224 is what CLIP takes")
    if not 0 < radius <= 1:
        raise InputError.at("radius", f"{radius} is not above 0 and at most 1", "0.02 is usual")
    views, points = seen.shape[:2]
    depth = seen.new_full((views * size * size,), math.inf)
    nearest = torch.full(depth.shape, points, dtype=torch.long, device=seen.device)
    # Fractional (column, row) of every point; its disc lies in the window of offsets around it.
    place = ((1 - seen[..., :2]) * size - 1) / 2
    reach = math.floor(radius * size / 2 + 0.51)  # a point is half a pixel off its own at most
    steps = torch.arange(-reach, reach + 1, device=seen.device)
    corner = place.round().clamp(-2 * reach, size + 2 * reach).long()
    view = torch.arange(views, device=seen.device)[:, None] * size * size
    number = torch.arange(points, device=seen.device).expand(views, points)
    covered = []
    for down in steps.tolist():  # a row of the window at once bounds memory
        pixel = corner[..., None, :] + torch.stack([steps, torch.full_like(steps, down)], dim=1)
        centre = 1 - (2 * pixel.to(seen.dtype) + 1) / size
        inside = ((seen[..., None, :2] - centre) ** 2).sum(-1) < radius**2
        inside &= ((pixel >= 0) & (pixel < size)).all(-1) & (seen[..., None, 2] >= 0)
        at = (view[..., None] + pixel[..., 1] * size + pixel[..., 0])[inside]
        which = number[..., None].expand_as(inside)[inside]
        z = seen[..., None, 2].expand_as(inside)[inside]
        depth.scatter_reduce_(0, at, z, "amin")
        covered.append((at, which, z))
    for at, which, z in covered:
        first = z == depth[at]
        nearest.scatter_reduce_(0, at[first], which[first], "amin")
    shape = (views, size, size)
    empty = depth.isinf()
    return (
        depth.masked_fill(empty, EMPTY).reshape(shape),
        nearest.masked_fill(empty, -1).reshape(shape),
    )


@checked_arguments
def render_depth(
    points: Tensor,
    *,
    elevation: Degrees = SIX_VIEWS[0],
    azimuth: Degrees = SIX_VIEWS[1],
    distance: float = 1.0,
    size: int = 224,
    radius: float = 0.02,
) -> Tensor:
    """(views, size, size) z-buffers of a point cloud, :data:`EMPTY` where there is no point.

    See :func:`seen_from` and :func:`z_buffer` for what the arguments mean. No points give empty
    maps.

    >>> render_depth(torch.zeros(1, 3), elevation=0, azimuth=0, size=3, radius=0.1)
    tensor([[[-1., -1., -1.],
             [-1.,  1., -1.],
             [-1., -1., -1.]]])
    """
    seen = seen_from(points, elevation=elevation, azimuth=azimuth, distance=distance)
    return z_buffer(seen, size=size, radius=radius)[0]


def share_outside(
    points: Tensor, *, elevation: Degrees, azimuth: Degrees, distance: float = 1.0
) -> float:
    """Share of points, over all views, that no picture shows: beside it, or behind the camera."""
    seen = seen_from(points, elevation=elevation, azimuth=azimuth, distance=distance)
    outside = (seen[..., :2].abs() > 1).any(-1) | (seen[..., 2] < 0)
    return float(outside.double().mean()) if outside.numel() else 0.0


@checked_arguments
def normalise_depth(zbuffer: Tensor, *, mode: Mode = "range") -> Tensor:
    """Depth maps in [0, 1], near dark and far light; :data:`BACKGROUND` where there is no point.

    Args:
        zbuffer: (views, size, size), as :func:`render_depth` gives it; it is not changed.
        mode: ``range``: each map from 0 to :data:`NEAR_TO_FAR`, so that only shape counts and not
            distance. ``published``: ``(z - min(zmin, 1)) / zmax``, times the same; the 1 is an
            accident of the released program, whose background is 1 before the minimum is taken.

    Raises:
        InputError: If the mode is another.
    """
    flat = zbuffer.flatten(1)
    shown = flat > 0
    least = flat.masked_fill(~shown, math.inf).amin(1, keepdim=True)
    most = flat.masked_fill(~shown, -math.inf).amax(1, keepdim=True)
    if mode == "published":
        least, scale = least.clamp(max=1.0), most
    else:
        scale = most - least
    found = (flat - least) / scale.clamp(min=1e-8) * NEAR_TO_FAR
    return found.where(shown, BACKGROUND).reshape(zbuffer.shape)
