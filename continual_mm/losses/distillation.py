"""Distillation: how far embeddings have moved from a teacher's."""

from torch import Tensor


def squared_distance(embeddings: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean over rows of the squared distance to the teacher's row.

    .. math::
        \frac1N \sum_i \lVert z_i - t_i \rVert^2

    Of unit vectors it is twice one minus the cosine: 0 is no change, 2 what unrelated vectors have,
    4 the opposite.

    Args:
        embeddings: z, (N, D).
        teacher: t, (N, D).

    Returns:
        A scalar.

    >>> import torch
    >>> float(squared_distance(torch.eye(2), torch.eye(2).flip(0)))
    2.0
    """
    return (embeddings - teacher).square().sum(1).mean()
