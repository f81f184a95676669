"""Distillation: how far embeddings, and their similarities, have moved from a teacher's."""

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from continual_mm.losses.transport import log_transport_plan


def squared_distance(embeddings: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean over rows of the squared distance to the teacher's row.

    .. math::
        \frac1N \sum_i \lVert z_i - t_i \rVert^2

    Of unit vectors it is twice one minus the cosine: 0 is no change, 2 what unrelated vectors have,
    4 the opposite.

    z and t, the embeddings and the teacher's, are (N, D).

    >>> import torch
    >>> float(squared_distance(torch.eye(2), torch.eye(2).flip(0)))
    2.0
    """
    return (embeddings - teacher).square().sum(1).mean()


def row_divergence(
    similarity: Tensor,
    teacher: Tensor,
    *,
    temperature: float,
    right_only: bool = True,
    right: Tensor | None = None,
) -> Tensor:
    r"""How differently queries would choose among the candidates, in both directions.

    .. math::
        \frac1N \sum_i m_i \, \mathrm{KL}\big(\mathrm{softmax}(T_{i\cdot} / \tau) \,\|\,
        \mathrm{softmax}(S_{i\cdot} / \tau)\big) + \text{the same of } T^\top, S^\top

    With ``right_only``, m is 1 for queries that the teacher answers with the diagonal and 0 for the
    others: what it has got wrong is not worth keeping (Mod-X puts the student's own row in the
    place of such a row, so that it counts as no divergence; hence N, not the sum of m). Without, m
    is 1 throughout.

    Args:
        similarity: S, (N, N), the student's; row i and column i belong to one item. Without
            ``right_only`` it may be (N, M) of any items.
        teacher: T, of the same shape.
        temperature: :math:`\tau`, in units of similarity.
        right_only: Leave out queries that the teacher answers wrongly.
        right: (N, N) which answers are right, if others than the diagonal are.

    Returns:
        A scalar in nats, at least 0; 0 where S is T, up to a constant.

    References:
        Zhu et al., CTP (arXiv 2308.07146); Ni et al., Mod-X (arXiv 2305.07437).

    >>> import torch
    >>> S = torch.eye(3)
    >>> float(row_divergence(S, S, temperature=0.1))
    0.0
    """
    one = _divergence(similarity, teacher, temperature, right_only, right)
    turned = None if right is None else right.T
    return one + _divergence(similarity.T, teacher.T, temperature, right_only, turned)


def _divergence(
    similarity: Tensor,
    teacher: Tensor,
    temperature: float,
    right_only: bool,
    right: Tensor | None,
) -> Tensor:
    old = (teacher / temperature).log_softmax(1)
    new = (similarity / temperature).log_softmax(1)
    each = (old.exp() * (old - new)).sum(1)
    if right_only:
        best = teacher.diagonal()
        if right is not None:
            best = teacher.masked_fill(~right.to(teacher.device), -torch.inf).amax(1)
        each = each * (best >= teacher.amax(1))
    return each.mean()


def relational_distance(embeddings: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean squared change of the similarities among the rows.

    .. math::
        \frac{1}{N (N-1)} \sum_{i \ne j} \big(z_i^\top z_j - t_i^\top t_j\big)^2

    A rotation of all rows together changes nothing. Unit vectors have 1 on the diagonal always, so
    it is left out.

    Args:
        embeddings: z, (N, D), N at least 2.
        teacher: t, (N, D).

    Returns:
        A scalar, of unit vectors in [0, 4].

    References:
        Park et al., Relational Knowledge Distillation (arXiv 1904.05068), compare distances and
        angles; of unit vectors, similarities hold both.

    >>> import torch
    >>> turned = torch.eye(2).flip(0)
    >>> float(relational_distance(turned, torch.eye(2)))
    0.0
    """
    count = embeddings.shape[0]
    change = embeddings @ embeddings.T - teacher @ teacher.T
    total = change.square().sum() - change.diagonal().square().sum()
    return total / (count * (count - 1))


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
        embeddings: z, (n, D), of the model that learns.
        teacher: (n, D) of the same rows; constant.
        centroids: C, (K, D); constant.
        biases: g, (K,), from :func:`prototype_potentials` of the teacher; constant.
        epsilon: Entropic temperature, in units of the cosine.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        old, new = (
            ((rows.to(centroids.dtype) @ centroids.T + biases) / epsilon).log_softmax(1)
            for rows in (teacher.detach(), embeddings)
        )
        return kl_div(new, old, reduction="batchmean", log_target=True)
