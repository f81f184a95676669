"""Distillation of who belongs to which prototype, replay-free."""

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from continual_mm.losses.transport import log_transport_plan


@torch.no_grad()
def prototype_potentials(
    embeddings: Tensor,
    centroids: Tensor,
    masses: Tensor,
    *,
    epsilon: float,
    tolerance: float = 1e-4,
    iterations: int = 100,
) -> Tensor:
    r"""Potentials of the prototypes with which embeddings fill their masses.

    With :math:`Q = \arg\min_{P \in U(1/n, h)} \langle P, -Z C^T\rangle - \varepsilon H(P)` the row
    of an embedding z, at sum one, is the softmax of :math:`(z C^T + g) / \varepsilon`: transport
    is an ordinary assignment with one number per prototype, g, which makes them as popular as h
    says.

    Args:
        embeddings: Z, (n, D).
        centroids: C, (K, D).
        masses: h, (K,), positive; their sum is one.
        epsilon: Entropic temperature, in units of the cosine.
        tolerance: See :func:`continual_mm.losses.transport.plan_distillation`.
        iterations: Most iterations.

    Returns:
        g, (K,).
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        cost = 1 - embeddings.float() @ centroids.float().T
    _, potentials = log_transport_plan(
        cost, epsilon=epsilon, column_masses=masses, tolerance=tolerance, iterations=iterations
    )
    return potentials.columns


def prototype_divergence(
    embeddings: Tensor, teacher: Tensor, centroids: Tensor, biases: Tensor, *, epsilon: float
) -> Tensor:
    r"""Mean divergence of prototype assignments from the teacher's, in nats.

    .. math::
        \frac1n \sum_i KL(Q_i \| Q'_i), \qquad
        Q'_i = \mathrm{softmax}((z_i C^T + g) / \varepsilon)

    Up to the teacher's entropy, a constant, it is the cross-entropy of SwAV's swapped prediction
    (Caron et al. 2020). SwAV's student has no g; with it, student and teacher are one function,
    so that a model which has not moved is not pulled.

    Args:
        embeddings: (n, D) of the model that learns.
        teacher: (n, D) of the same rows; constant.
        centroids: C, (K, D); constant.
        biases: g, (K,), from :func:`prototype_potentials` of the teacher; constant.
        epsilon: Entropic temperature, in units of the cosine.

    Returns:
        A scalar in float32 or better.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        old, new = (
            ((rows.to(centroids.dtype) @ centroids.T + biases) / epsilon).log_softmax(1)
            for rows in (teacher.detach(), embeddings)
        )
        return kl_div(new, old, reduction="batchmean", log_target=True)
