"""The contrastive loss: every item is to find its partner among all of the batch."""

import math

import torch
from torch import Tensor


def unit(vectors: Tensor) -> Tensor:
    """Scale vectors to length one, in float32 or better.

    A zero vector has no direction: it stays zero, and its gradient is zero. (The customary
    ``torch.nn.functional.normalize`` returns a gradient of order 1e12 there, and clipping the
    norm of the gradient then silences every other item of the batch.)

    Args:
        vectors: (..., features), at any scale.
    """
    wide = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    length: Tensor = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    return wide / length.masked_fill(length < 1e-12, math.inf)


def masked_margin_softmax(
    similarity: Tensor, *, margin: float = 0.001, right: Tensor | None = None
) -> Tensor:
    r"""Symmetric softmax loss of the diagonal with a margin, as in AVLnet and MCN.

    .. math::
        \frac1N \sum_i \Big[\log \sum_j e^{S'_{ij}} - S'_{ii}\Big]
        + \frac1N \sum_j \Big[\log \sum_i e^{S'_{ij}} - S'_{jj}\Big],
        \qquad S' = S - \delta I

    The two directions are added, not averaged: ``2 log N`` is chance. The margin also lowers the
    positive inside the sums. Half precision cannot resolve the margin once a similarity, a raw
    dot product, exceeds 2; the loss is therefore computed in float32 or better, autocast or not.

    Args:
        similarity: (N, N), entry (i, j) comparing item i of one modality with item j of the other.
        margin: What a correct pair must win by, in units of similarity.
        right: (N, N) which answers are right, if others than the diagonal are, such as further
            captions of a recording: they are left out of the sums, where they are no negatives.

    Returns:
        The loss, a scalar in nats.

    References:
        Rouditchenko et al., AVLnet (arXiv 2006.09199); Chen et al., MCN (arXiv 2104.12671).

    >>> chance = masked_margin_softmax(torch.zeros(8, 8), margin=0.0)
    >>> round(chance.item() / math.log(8), 4)
    2.0
    """
    rows, *columns = similarity.shape
    if columns != [rows] or not rows:
        raise ValueError(
            f"similarities of shape {tuple(similarity.shape)}; the loss needs (N, N), with the "
            "correct pairs on the diagonal"
        )
    with torch.autocast(similarity.device.type, enabled=False):
        wide = similarity.to(torch.promote_types(similarity.dtype, torch.float32))
        logits = wide.diagonal_scatter(wide.diagonal() - margin)
        if right is not None:
            others = right.to(logits.device, copy=True).fill_diagonal_(False)
            logits = logits.masked_fill(others, -math.inf)
        return (logits.logsumexp(1) + logits.logsumexp(0) - 2 * logits.diagonal()).mean()
