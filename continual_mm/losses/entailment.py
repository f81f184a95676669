"""MERU's objective: contrast by hyperbolic distance, and general items entail specific ones."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from continual_mm.losses.lorentz import (
    BOUNDARY,
    exterior_angle,
    half_aperture,
    lorentz_distance,
)


def entailment_loss(
    general: Tensor, specific: Tensor, *, curvature: float | Tensor, boundary: float = BOUNDARY
) -> Tensor:
    r"""How far specific items lie outside the cones of their general partners, in radians.

    :math:`\frac1N \sum_i \max(0, \varphi(g_i, s_i) - \omega(g_i))`; 0 if all are entailed.

    Args:
        general: (N, D) space components of the apexes, such as texts.
        specific: (N, D) space components of their partners, such as images.
        curvature: c, above 0.
        boundary: K, above 0.
    """
    angle = exterior_angle(general, specific, curvature=curvature)
    aperture = half_aperture(general, curvature=curvature, boundary=boundary)
    return (angle - aperture).clamp(min=0).mean()


def hyperbolic_contrast(
    general: Tensor,
    specific: Tensor,
    *,
    scale: float | Tensor,
    curvature: float | Tensor,
    right: Tensor | None = None,
) -> Tensor:
    r"""Mean of both directions' cross entropies of the diagonal, logits :math:`-s \, d(g_i, s_j)`.

    ``log N`` is chance. Arguments as of :func:`meru_loss`.
    """
    distances = lorentz_distance(general[:, None], specific[None], curvature=curvature)
    return contrast_of(-scale * distances, right)


def contrast_of(logits: Tensor, right: Tensor | None = None) -> Tensor:
    """Mean of both directions' cross entropies of the diagonal of (N, N) logits.

    ``right``, (N, N), are answers that are right as well as the diagonal, and so no negatives.
    """
    answers = torch.arange(len(logits), device=logits.device)
    if right is not None:
        others = right.to(logits.device, copy=True).fill_diagonal_(False)
        logits = logits.masked_fill(others, -torch.inf)
    return (cross_entropy(logits, answers) + cross_entropy(logits.T, answers)) / 2


def meru_loss(
    general: Tensor,
    specific: Tensor,
    *,
    scale: float | Tensor,
    curvature: float | Tensor,
    weight: float = 0.2,
    boundary: float = BOUNDARY,
    right: Tensor | None = None,
) -> Tensor:
    """The contrast plus ``weight`` times the entailment, in float32 or better, autocast or not.

    Args:
        general: (N, D) space components of what entails, such as texts.
        specific: (N, D) space components; row i belongs with row i.
        scale: What distances are multiplied by.
        curvature: c, above 0.
        weight: Of the entailment loss.
        boundary: K of the cones.
        right: (N, N) which rows answer one another, if others than each itself do.

    References:
        Desai et al., Hyperbolic image-text representations (arXiv 2304.09172).
    """
    with torch.autocast(general.device.type, enabled=False):
        g, s = (
            points.to(torch.promote_types(points.dtype, torch.float32))
            for points in (general, specific)
        )
        contrast = hyperbolic_contrast(g, s, scale=scale, curvature=curvature, right=right)
        return contrast + weight * entailment_loss(g, s, curvature=curvature, boundary=boundary)
