"""What of a teacher's plan is believed, where the right partners are known."""

import math

import torch
from torch import Tensor


def trusted_plan(log_plan: Tensor, trust: float) -> Tensor:
    r"""Logarithm of a teacher's plan mixed with the plan of the right partners.

    .. math::
        P \leftarrow t P + (1 - t) \, I / n

    Who distils a teacher distils its mistakes (Ni et al. 2023, Mod-X, leave rows out where it is
    wrong). A row that is left out breaks the sums of the columns, with which the divergence would
    lose its closed gradient; the mixture keeps both marginals, and pulls most where the teacher
    gives the right partner least.

    Args:
        log_plan: (n, n) or (B, n, n); item i belongs with item i.
        trust: t, in [0, 1]: 1 leaves the plan as it is, 0 leaves nothing of it.

    Raises:
        ValueError: If the plan is not square, or t lies elsewhere.

    >>> trusted_plan(torch.full((2, 2), 0.25).log(), 0.5).exp()
    tensor([[0.3750, 0.1250],
            [0.1250, 0.3750]])
    """
    count = log_plan.shape[-1]
    if log_plan.ndim < 2 or log_plan.shape[-2] != count:
        raise ValueError(
            f"a plan of shape {tuple(log_plan.shape)}; only a square one knows right partners"
        )
    if not 0 <= trust <= 1:
        raise ValueError(f"trust {trust} must lie in [0, 1]")
    if trust == 1 or not count:
        return log_plan
    # The smallest number instead of 0: an infinite logarithm would make the divergence NaN.
    kept = log_plan + math.log(max(trust, torch.finfo(torch.float32).tiny))
    right = kept.diagonal(dim1=-2, dim2=-1)
    mixed = torch.logaddexp(right, right.new_tensor(math.log((1 - trust) / count)))
    return kept.diagonal_scatter(mixed, dim1=-2, dim2=-1)


def right_items(log_plan: Tensor) -> Tensor:
    """Which items find each other in a plan: the right partner's entry is the largest both ways.

    Who leaves out what a teacher gets wrong (Ni et al. 2023, Mod-X, do so for rows of a softmax)
    can leave out of a *plan* only items, in both modalities, before transport is solved again among
    those that remain: then the divergence is that of a plan between uniform masses as ever, with
    its closed gradient, whereas rows struck out of a finished plan leave columns of unequal mass,
    and a mask on the divergence's rows a gradient that has to go through the potentials.

    Args:
        log_plan: (n, n) or (B, n, n); item i belongs with item i. The plan itself will do.

    Returns:
        A mask, (n,) or (B, n). Ties with the right partner count as right.

    Raises:
        ValueError: If the plan is not square.

    >>> right_items(torch.tensor([[5.0, 0.0, 1.0], [0.0, 2.0, 3.0], [0.0, 1.0, 4.0]]))
    tensor([ True, False,  True])
    """
    if log_plan.ndim < 2 or log_plan.shape[-2] != log_plan.shape[-1]:
        raise ValueError(
            f"a plan of shape {tuple(log_plan.shape)}; only a square one knows right partners"
        )
    right = log_plan.diagonal(dim1=-2, dim2=-1)
    return (right >= log_plan.amax(-1)) & (right >= log_plan.amax(-2))
