"""Corrections of a teacher's plan where the right partners are known."""

import math

import torch
from torch import Tensor


def trusted_plan(log_plan: Tensor, trust: float) -> Tensor:
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
    right = _right_partners(kept)  # a view: the last bits of logaddexp depend on its strides
    mixed = torch.logaddexp(right, right.new_tensor(math.log((1 - trust) / count)))
    return kept.diagonal_scatter(mixed, dim1=-2, dim2=-1)


def right_items(log_plan: Tensor) -> Tensor:
    """Which items are matched rightly: the right partner's entry is the largest, both ways.

    What a teacher gets wrong can be left out of distillation (Ni et al. 2023, Mod-X, do so for rows
    of a softmax). Of a *plan* it must be items, in both modalities, before transport is solved
    again among those that remain: then the plan has uniform masses, and the divergence its closed
    gradient. Without some rows of a finished plan the columns have unequal masses, and with a mask
    on the divergence's rows the gradient has to go through the potentials.

    Args:
        log_plan: (n, n) or (B, n, n); item i belongs with item i. The plan itself will do.

    Returns:
        A mask, (n,) or (B, n). Ties with the right partner count as right.

    >>> right_items(torch.tensor([[5.0, 0.0, 1.0], [0.0, 2.0, 3.0], [0.0, 1.0, 4.0]]))
    tensor([ True, False,  True])
    """
    right = _right_partners(log_plan)
    return (right >= log_plan.amax(-1)) & (right >= log_plan.amax(-2))


def _right_partners(log_plan: Tensor) -> Tensor:
    """Entries of the right partners, (n,) or (B, n)."""
    if log_plan.ndim < 2 or log_plan.shape[-2] != log_plan.shape[-1]:
        raise ValueError(
            f"a plan of shape {tuple(log_plan.shape)}; only a square one has right partners"
        )
    return log_plan.diagonal(dim1=-2, dim2=-1)
