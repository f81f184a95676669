"""Maps between two spaces or layers: rotations, and transport plans of their units."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from continual_mm.system.imports import in_parts

with in_parts("ot"):  # all of it takes scikit-learn, pandas and a second or two
    from ot.lp import emd

Cost = Literal["euclidean", "manhattan", "cosine"]

ITERATIONS = 10_000_000  # of the network simplex, at most
SMALLEST = 1e-12  # length below which a row has no direction: of a unit that never changes


def orthogonal_map(source: Tensor, target: Tensor) -> Tensor:
    r"""The rotation or reflection that brings rows nearest to others (orthogonal Procrustes).

    .. math::
        Q = \arg\min_{Q^T Q = 1} \lVert S Q - T \rVert_F = U V^T ,
        \qquad U \Sigma V^T = S^T T

    (Schönemann, Psychometrika 1966). It is unique where S and T span all D dimensions, which takes
    at least D rows; what they do not span is mapped in some orthogonal way.

    Args:
        source: (n, D) rows, S.
        target: (n, D) the rows that belong to them, T.

    Returns:
        (D, D) Q, in the type of ``source``; worked out in float64.

    Raises:
        ValueError: If the shapes differ, there is no row, or a number is not finite.
    """
    if source.dim() != 2 or source.shape != target.shape or not len(source):
        shapes = f"{tuple(source.shape)} and {tuple(target.shape)}"
        raise ValueError(f"two tables of (n, D) rows are needed, n at least 1; these are {shapes}")
    _check_finite(source, target)
    left, _, right = torch.linalg.svd(source.double().T @ target.double())
    found: Tensor = left @ right
    return found.to(source.dtype)


def unit_plan(
    a: Tensor,
    b: Tensor,
    *,
    cost: Cost = "euclidean",
    masses_a: Tensor | None = None,
    masses_b: Tensor | None = None,
) -> Tensor:
    r"""The exact transport plan between the units of two layers.

    .. math::
        T = \arg\min_{T \ge 0} \sum_{ij} T_{ij} C_{ij}, \qquad T 1 = \mu, \quad T^T 1 = \nu

    As in OTFusion (Singh and Jaggi 2020, arXiv 1910.05653), solved by POT's network simplex. For
    as many units on both sides and uniform masses T is a permutation divided by their number.

    Args:
        a: (n_A, F) features of the units of A, such as their activations on F items.
        b: (n_B, F) features of those of B.
        cost: C: the Euclidean distance of features, not squared, the sum of their absolute
            differences, or one minus their cosine. A unit with features of length zero has the
            cosine 0 with all others.
        masses_a: (n_A,) positive, brought to the sum 1; uniform, if left out.
        masses_b: (n_B,) the same of B.

    Returns:
        (n_A, n_B) float64, on the CPU, with the sum 1.

    Raises:
        ValueError: If shapes do not fit, there is no unit, a number is not finite or a mass not
            positive.
    """
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[1] or not (len(a) and len(b)):
        shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise ValueError(f"units of equally many features are needed; these are {shapes}")
    _check_finite(a, b)
    first, second = a.detach().double().cpu(), b.detach().double().cpu()
    if cost == "cosine":
        first, second = (normalize(each, dim=1, eps=SMALLEST) for each in (first, second))
        costs = 1 - first @ second.T
    else:
        exact = "donot_use_mm_for_euclid_dist"
        costs = torch.cdist(first, second, p=1 if cost == "manhattan" else 2, compute_mode=exact)
    plan = emd(
        _masses(masses_a, len(a)).numpy(),
        _masses(masses_b, len(b)).numpy(),
        costs.contiguous().numpy(),
        numItermax=ITERATIONS,
    )
    return torch.from_numpy(plan)


def _masses(given: Tensor | None, units: int) -> Tensor:
    if given is None:
        return torch.full((units,), 1 / units, dtype=torch.float64)
    masses = given.detach().double().cpu()
    if masses.shape != (units,):
        raise ValueError(f"{units} masses are needed; {tuple(given.shape)} are given")
    if not bool((masses.isfinite() & (masses > 0)).all()):
        raise ValueError("masses must be finite and positive")
    return masses / masses.sum()


def outgoing_map(plan: Tensor) -> Tensor:
    """(n_A, n_B) plan -> (n_B, n_A): a unit of B as the mean of those of A that it receives.

    Rows sum to 1. Incoming weights and biases of A's units are multiplied by it from the left.
    """
    return (plan / plan.sum(0)).T


def incoming_map(plan: Tensor) -> Tensor:
    """(n_A, n_B) plan -> (n_A, n_B): how the units of B share what read a unit of A.

    Rows sum to 1, so that what a next layer receives keeps its size even where A and B are not
    equally wide. The weights of what reads A's units are multiplied by it from the right.
    """
    return plan / plan.sum(1, keepdim=True)


def standardised_units(activations: Tensor) -> Tensor:
    """(samples, units) activations -> (units, samples) of mean 0 and spread 1, float64.

    A unit that does not change has zeros.
    """
    values = activations.detach().double()
    centred = values - values.mean(0)
    spread = centred.square().mean(0).sqrt()
    moves = spread > SMALLEST * values.abs().amax(0).clamp(min=1.0)
    rate = torch.where(moves, 1 / spread.clamp(min=SMALLEST), torch.zeros_like(spread))
    return (centred * rate).T


def residual(source: Tensor, target: Tensor) -> float:
    """Root mean square distance of (n, D) unit rows from others, in [0, 2]."""
    return float((source.double() - target.double()).square().sum(1).mean().sqrt())


def _check_finite(*tables: Tensor) -> None:
    if not all(bool(each.isfinite().all()) for each in tables):
        raise ValueError("a number is NaN or infinite")
