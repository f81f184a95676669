"""The terms of HYPE's score: how specific both items of a pair are, and how well they agree."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from continual_mm.losses.lorentz import BOUNDARY, exterior_angles, half_aperture, lorentz_distance

_BLOCK = 1 << 21  # angles that are in memory at once: 16 MB, a few times


@dataclass(frozen=True, slots=True, eq=False)
class HypeTerms:
    """What the score of N pairs is made of; (N,) each."""

    # Radians by which the reference items of the other modality lie outside the general item's
    # cone, on average; below 0 inside.
    general: Tensor
    # Radians by which the other item lies outside the cones of general reference items.
    other: Tensor
    distance: Tensor  # between partners, in the hyperbolic space
    cosine: Tensor  # of partners, in another space

    @property
    def score(self) -> Tensor:
        """Their sum, the distance subtracted: large for specific items that agree."""
        return self.general + self.other - self.distance + self.cosine


def hype_terms(
    general: Tensor,
    other: Tensor,
    cosine: Tensor,
    *,
    curvature: float,
    references: Tensor,
    boundary: float = BOUNDARY,
) -> HypeTerms:
    r"""The terms of HYPE (Kim et al. 2024, arXiv 2404.17507), without clusters of ImageNet.

    .. math::
        \epsilon(o) = \frac1R \sum_{g \in \mathcal R} \varphi(g, o) - \omega(g), \qquad
        \epsilon(g) = \frac1R \sum_{o \in \mathcal R} \varphi(g, o) - \omega(g)

    The general item is the apex in both, residuals are not cut off at 0, and a pair's own item is
    no reference of it.

    Args:
        general: (N, D) space components of the items that entail, such as texts; float64, since
            float32 has no digits of small angles.
        other: (N, D) those of their partners, such as images.
        cosine: (N,) similarities of the partners in a space that is not hyperbolic.
        curvature: c of the space.
        references: (R,) pairs whose items all others are compared with, two at least.
        boundary: K of the cones.

    Raises:
        ValueError: If there are fewer than two references.
    """
    if len(references) < 2:
        problem = "a pair is compared with others only"
        raise ValueError(f"{len(references)} references are too few: {problem}; give two or more")
    aperture = half_aperture(general, curvature=curvature, boundary=boundary)
    of_references = general[references], aperture[references]

    def outside(rows: slice) -> Tensor:
        apexes, openings = of_references
        angles = exterior_angles(apexes, other[rows], curvature=curvature)
        return (angles - openings[:, None]).T

    def uncovered(rows: slice) -> Tensor:
        angles = exterior_angles(general[rows], other[references], curvature=curvature)
        return angles - aperture[rows, None]

    return HypeTerms(
        _mean_over_others(uncovered, references, len(general)),
        _mean_over_others(outside, references, len(general)),
        lorentz_distance(general, other, curvature=curvature),
        cosine.to(general),
    )


def hype_score(
    general: Tensor,
    other: Tensor,
    cosine: Tensor,
    *,
    curvature: float,
    references: Tensor,
    boundary: float = BOUNDARY,
) -> Tensor:
    """(N,) scores of pairs, see :func:`hype_terms`."""
    found = hype_terms(
        general, other, cosine, curvature=curvature, references=references, boundary=boundary
    )
    return found.score


def _mean_over_others(
    residuals: Callable[[slice], Tensor], references: Tensor, count: int
) -> Tensor:
    """(count,) means of (rows, R) residuals, those with the row's own item left out."""
    means, height = [], max(1, _BLOCK // len(references))
    for start in range(0, count, height):
        rows = slice(start, min(start + height, count))
        own = torch.arange(rows.start, rows.stop, device=references.device)[:, None] == references
        found = residuals(rows).masked_fill(own, 0.0)
        means.append(found.sum(1) / (~own).sum(1))
    return torch.cat(means)
