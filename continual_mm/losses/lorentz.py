r"""Hyperbolic geometry in the Lorentz model: distances, cones of entailment, the exponential map.

A point of the space of curvature :math:`-c` is kept as its D space components :math:`x`; its time
component is :math:`x_t = \sqrt{1/c + |x|^2}`. The origin is the root of the hierarchy: what is near
it is general and entails much, what is far from it is specific (Desai et al. 2023, MERU, arXiv
2304.09172).

All forms keep their digits in float64 where points are near each other or angles near 0, which the
usual ones, the ``acosh`` and ``acos`` of inner products, do not. In float32 angles between points
far from the origin are only good to about 1e-3: train in float32, score in float64. Every gradient
is finite, also where the function has none.
"""

import math

import torch
from torch import Tensor

BOUNDARY = 0.1
"""K: within 2K of the origin, at curvature -1, a cone is half of the space."""

LARGEST_ARGUMENT = math.asinh(2.0**15)
"""Of the hyperbolic sine in :func:`exponential_map`."""

_SMALL = 1e-3  # below it three terms of the series of sinh(r) / r are exact in float64


def exponential_map(v: Tensor, *, curvature: float | Tensor) -> Tensor:
    r"""Points that tangent vectors at the origin lead to: :math:`\sinh(r) / r \; v`.

    :math:`r = \sqrt c \, |v|` is the distance from the origin in units of the curvature, and is
    capped at :data:`LARGEST_ARGUMENT`, about 11.1, so that float32 does not overflow.

    Args:
        v: (..., D) tangent vectors.
        curvature: c, above 0.

    Returns:
        (..., D) space components.

    >>> exponential_map(torch.tensor([1.0, 0.0]), curvature=1.0)
    tensor([1.1752, 0.0000])
    """
    root = _sqrt(_as_tensor(curvature, v))
    radius = root * torch.linalg.vector_norm(v, dim=-1, keepdim=True)
    large = radius.clamp(min=_SMALL)
    stretched = torch.sinh(large.clamp(max=LARGEST_ARGUMENT)) / large
    squares = radius.square()
    series = 1 + squares / 6 * (1 + squares / 20)
    return v * torch.where(radius < _SMALL, series, stretched)


def lorentz_distance(x: Tensor, y: Tensor, *, curvature: float | Tensor) -> Tensor:
    r"""Geodesic distances between points.

    .. math::
        d(x, y) = \tfrac{2}{\sqrt c} \operatorname{asinh}\big(\tfrac12 \sqrt{c q}\big), \qquad
        q = |x - y|^2 - (x_t - y_t)^2

    which is :math:`\operatorname{acosh}(-c \langle x, y \rangle) / \sqrt c` without a difference
    of large numbers: :math:`x_t - y_t = (x - y) \cdot (x + y) / (x_t + y_t)`.

    Args:
        x: (..., D) space components.
        y: (..., D) space components; leading axes are broadcast.
        curvature: c, above 0.

    Returns:
        (...), 0 or more.

    >>> x, y = torch.tensor([0.5, 0.0]), torch.tensor([0.0, 1.0])
    >>> round(lorentz_distance(x.double(), y.double(), curvature=1.0).item(), 10)
    1.0317185344
    """
    c = _as_tensor(curvature, x)
    apart, total = x - y, _time(x.square().sum(-1), c) + _time(y.square().sum(-1), c)
    in_time = (apart * (x + y)).sum(-1) / total
    interval = apart.square().sum(-1) - in_time.square()
    return torch.asinh(_sqrt(c * interval) / 2) * 2 / _sqrt(c)


def half_aperture(x: Tensor, *, curvature: float | Tensor, boundary: float = BOUNDARY) -> Tensor:
    r"""Half of the angle that a point's cone of entailment opens with, in radians.

    :math:`\omega(x) = \arcsin(\min(1, 2K / (\sqrt c \, |x|)))`: the farther from the origin, the
    narrower.

    Args:
        x: (..., D) space components of the apex.
        curvature: c, above 0.
        boundary: K, above 0.

    Returns:
        (...), above 0 and at most pi/2, which it is near the origin.

    >>> round(half_aperture(torch.tensor([0.5, 0.0]).double(), curvature=1.0).item(), 10)
    0.4115168461
    """
    c = _as_tensor(curvature, x)
    opposite = torch.full_like(x[..., 0], 2 * boundary)
    return torch.atan2(opposite, _sqrt(c * x.square().sum(-1) - opposite.square()))


def exterior_angle(apex: Tensor, y: Tensor, *, curvature: float | Tensor) -> Tensor:
    r"""Angle at the apex between the geodesic away from the origin and the one to a point.

    A point lies in the apex's cone if this is at most :func:`half_aperture`.

    .. math::
        \varphi(x, y) = \operatorname{atan2}\big(|y_\perp|, \;
            \sqrt c \, (x_t y_\parallel - y_t |x|)\big)

    with the components of y along x and across it.

    Args:
        apex: (..., D) space components.
        y: (..., D) space components; leading axes are broadcast.
        curvature: c, above 0.

    Returns:
        (...) radians, in [0, pi]; pi/2 where the apex is the origin, whose cone is all of the
        space. There is no such angle where y is the apex.

    >>> apex, y = torch.tensor([0.5, 0.0]), torch.tensor([0.0, 1.0])
    >>> round(exterior_angle(apex.double(), y.double(), curvature=1.0).item(), 10)
    2.1862760355
    """
    direction, length = _direction(apex)
    along = (y * direction).sum(-1)
    across = torch.linalg.vector_norm(y - along[..., None] * direction, dim=-1)
    return _angle(along, across, length, y.square().sum(-1), _as_tensor(curvature, apex))


def exterior_angles(apexes: Tensor, points: Tensor, *, curvature: float | Tensor) -> Tensor:
    """As :func:`exterior_angle`, of all pairs by a matrix product: (A, D), (B, D) -> (A, B).

    In float64 the angles of points at least 0.1 apart are good to 1e-12.
    """
    direction, length = _direction(apexes)
    along, squares = direction @ points.T, points.square().sum(-1)
    across = _sqrt(squares - along.square())
    return _angle(along, across, length[:, None], squares, _as_tensor(curvature, apexes))


def _angle(along: Tensor, across: Tensor, length: Tensor, squares: Tensor, c: Tensor) -> Tensor:
    forward = _sqrt(c) * (_time(length.square(), c) * along - _time(squares, c) * length)
    angle = torch.atan2(across, forward)
    return torch.where(length > 0, angle, angle.new_tensor(math.pi / 2))


def _direction(x: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors, zeros of zeros, and lengths."""
    length = torch.linalg.vector_norm(x, dim=-1)
    return x / torch.where(length > 0, length, 1.0)[..., None], length


def _time(squares: Tensor, c: Tensor) -> Tensor:
    return torch.sqrt(1 / c + squares)


def _sqrt(values: Tensor) -> Tensor:
    """The root of what is above 0, else 0, where its gradient is 0 as well rather than infinite."""
    positive = values > 0
    return torch.where(positive, values, 1.0).sqrt() * positive


def _as_tensor(curvature: float | Tensor, like: Tensor) -> Tensor:
    if not isinstance(curvature, Tensor):
        if not 0 < curvature < math.inf:
            raise ValueError(f"curvature {curvature} must be above 0: it is c, of a space of -c")
        return like.new_tensor(curvature)
    return curvature.to(like)
