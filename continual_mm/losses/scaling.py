"""Sinkhorn's iterations as matrix products, where no number can leave the range of floats."""

import math

import torch
from torch import Tensor

FARTHEST = 20.0
"""How far the largest logarithm of a row or column of the kernel may lie from 0."""
UNDERFLOW = 0.9
"""Part of the range of exponents that the kernel may use: below it an entry would count as zero,
which a plan far from the kernel can need."""
LOOK_EVERY = 10
"""Iterations from one look whether they have converged to the next, as POT looks."""


@torch.no_grad()
def log_scalings(
    log_kernel: Tensor, columns: Tensor, *, tolerance: float, iterations: int
) -> tuple[Tensor, Tensor] | None:
    r"""Logarithms of what a kernel's rows and columns are multiplied by to become a plan.

    .. math::
        u \leftarrow \frac{1/n}{K v}, \qquad v \leftarrow \frac{b}{K^T u}, \qquad K = e^L

    The same iterations as in the log domain, and as many, at a quarter of their cost for 128 items.
    Where good potentials were taken off a cost, K is nearly the plan already; then
    nothing can overflow or underflow.

    Args:
        log_kernel: (B, n, m), L.
        columns: (B, m), b, the columns' masses.
        tolerance: Euclidean norm of the error of the row sums at which iterations stop.
        iterations: Most iterations.

    Returns:
        log u, (B, n), and log v, (B, m); None where the kernel is too far from a plan, or a number
        is not finite.

    References:
        Schmitzer, Stabilized sparse scaling algorithms (2019).
    """
    largest = torch.cat([log_kernel.amax(-1), log_kernel.amax(-2)], dim=-1)
    least = UNDERFLOW * math.log(torch.finfo(log_kernel.dtype).tiny)
    if not bool((largest.abs() <= FARTHEST).all() & (log_kernel.amin() >= least)):
        return None
    kernel, right = log_kernel.exp(), columns[..., None]
    mass = 1 / kernel.shape[-2]
    turned, v = kernel.mT, torch.ones_like(right)
    u = torch.empty_like(kernel[..., :1])
    for number in range(iterations):
        u = mass / (kernel @ v)
        v = right / (turned @ u)
        if number % LOOK_EVERY == 0:
            error = torch.linalg.vector_norm(u * (kernel @ v) - mass, dim=-2).max()
            if bool(error < tolerance):
                break
    found = u.log()[..., 0], v.log()[..., 0]
    return found if all(bool(part.isfinite().all()) for part in found) else None
