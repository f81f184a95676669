"""Corrections of a teacher's plan where the right partners are known."""

import math

import torch
from torch import Tensor

from continual_mm.losses.transport import log_transport_plan

_FAR = 100.0  # what a wrong partner costs in nats: its share is none


def right_plan(right: Tensor) -> Tensor:
    """Logarithm of the plan of the right partners, where an item has several.

    Of all plans with uniform masses that match right partners only the one of the highest entropy:
    equal shares among items that answer one another. It is the limit of Sinkhorn's scaling of the
    mask, which has one wherever each right entry lies on a permutation of right ones, as with
    partners that are right since a row repeats an item.

    Args:
        right: (n, n) which partners are right, the diagonal among them.

    >>> right_plan(torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    ...     ).exp().mul(6).round()
    tensor([[1., 1., 0.],
            [1., 1., 0.],
            [0., 0., 2.]])
    """
    cost = _FAR * (~right).float()
    plan, _ = log_transport_plan(cost, epsilon=1.0, tolerance=1e-6, iterations=1000)
    return plan


def trusted_plan(log_plan: Tensor, trust: float, right: Tensor | None = None) -> Tensor:
    r"""Logarithm of a teacher's plan mixed with the plan of the right partners.

    .. math::
        P \leftarrow t P + (1 - t) \, I / n

    Distillation copies a teacher's mistakes (Ni et al. 2023, Mod-X, leave out rows where it is
    wrong). Without a row, the sums of the columns are no longer uniform, and the divergence loses
    its closed gradient; the mixture keeps both marginals, and pulls most where the teacher gives
    the right partner least.

    Args:
        log_plan: (n, n) or (B, n, n); item i belongs with item i.
        trust: t, in [0, 1]: 1 leaves the plan as it is, 0 leaves nothing of it.
        right: The logarithm of another plan of the right partners than I / n, of the same shape
            (:func:`right_plan`).

    >>> trusted_plan(torch.full((2, 2), 0.25).log(), 0.5).exp()
    tensor([[0.3750, 0.1250],
            [0.1250, 0.3750]])
    """
    _right_partners(log_plan)
    count = log_plan.shape[-1]
    if not 0 <= trust <= 1:
        raise ValueError(f"trust {trust} must lie in [0, 1]")
    if trust == 1 or not count:
        return log_plan
    # The smallest number instead of 0: an infinite logarithm would make the divergence NaN.
    kept = log_plan + math.log(max(trust, torch.finfo(torch.float32).tiny))
    if right is not None:
        return torch.logaddexp(kept, right.to(kept) + math.log(1 - trust))
    own = _right_partners(kept)  # a view: the last bits of logaddexp depend on its strides
    mixed = torch.logaddexp(own, own.new_tensor(math.log((1 - trust) / count)))
    return kept.diagonal_scatter(mixed, dim1=-2, dim2=-1)


def right_items(log_plan: Tensor, right: Tensor | None = None) -> Tensor:
    """Which items are matched rightly: a right partner's entry is the largest, both ways.

    What a teacher gets wrong can be left out of distillation (Ni et al. 2023, Mod-X, do so for rows
    of a softmax). Of a *plan* it must be items, in both modalities, before transport is solved
    again among those that remain: then the plan has uniform masses, and the divergence its closed
    gradient. Without some rows of a finished plan the columns have unequal masses, and with a mask
    on the divergence's rows the gradient has to go through the potentials.

    Args:
        log_plan: (n, n) or (B, n, n); item i belongs with item i. The plan itself will do.
        right: Of the same shape, which partners are right, where others are as well.

    Returns:
        A mask, (n,) or (B, n). Ties with the right partner count as right.

    >>> right_items(torch.tensor([[5.0, 0.0, 1.0], [0.0, 2.0, 3.0], [0.0, 1.0, 4.0]]))
    tensor([ True, False,  True])
    """
    rows = columns = _right_partners(log_plan)
    if right is not None:
        best = log_plan.masked_fill(~right.to(log_plan.device), -math.inf)
        rows, columns = best.amax(-1), best.amax(-2)
    return (rows >= log_plan.amax(-1)) & (columns >= log_plan.amax(-2))


def _right_partners(log_plan: Tensor) -> Tensor:
    """Entries of the right partners, (n,) or (B, n)."""
    if log_plan.ndim < 2 or log_plan.shape[-2] != log_plan.shape[-1]:
        raise ValueError(
            f"a plan of shape {tuple(log_plan.shape)}; only a square one has right partners"
        )
    return log_plan.diagonal(dim1=-2, dim2=-1)
