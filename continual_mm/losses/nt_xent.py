"""NT-Xent between two views of the same items, and a weight for it that is learned."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from continual_mm.losses.contrastive import unit


def nt_xent(first: Tensor, second: Tensor, *, temperature: float = 0.07) -> Tensor:
    r"""Normalised, temperature-scaled cross entropy (Chen et al. 2020) over both views.

    .. math::
        -\frac1{2N} \sum_{i=1}^{2N} \log
        \frac{e^{z_i^\top z_{i'}/\tau}}{\sum_{j \ne i} e^{z_i^\top z_j/\tau}}

    where z are the 2N views at length one and i' is the other view of i's item. An item's
    negatives are both views of all others: 2N - 1 candidates, so :math:`\log(2N - 1)` means chance.

    Args:
        first: (N, D) one view of each item, at any scale.
        second: (N, D) the other.
        temperature: τ, above 0.

    Returns:
        A scalar, at least 0; 0 for no items.
    """
    items = len(first)
    if not items:
        return first.sum() + second.sum()
    both = unit(torch.cat([first, second]))
    logits = both @ both.T / temperature
    itself = torch.eye(2 * items, dtype=torch.bool, device=logits.device)
    targets = torch.arange(2 * items, device=logits.device).roll(items)
    return cross_entropy(logits.masked_fill(itself, -torch.inf), targets)


def uncertain(loss: Tensor, log_sigma: Tensor) -> Tensor:
    r""":math:`L/\sigma^2 + \log(1 + \sigma)` with :math:`\sigma = e^s`, which is never 0.

    The learned weight of a loss beside others (after Kendall et al. 2018, in the form of
    CLIP2Point). It is least in σ where :math:`\sigma^3 = 2L(1 + \sigma)`.

    Args:
        loss: A scalar, at least 0.
        log_sigma: s, a scalar.
    """
    return loss * torch.exp(-2 * log_sigma) + torch.log1p(log_sigma.exp())
