"""Distillation of unbalanced plans: an item without a good partner need not be matched."""

import math

import torch
from torch import Tensor

from continual_mm.losses.transport import Potentials, divergence_of_logs

CHECK_EVERY = 10  # iterations between two checks of convergence


@torch.no_grad()
def log_unbalanced_plan(
    cost: Tensor,
    *,
    epsilon: float,
    rho: float,
    potentials: tuple[Tensor, Tensor] | None = None,
    tolerance: float = 1e-9,
    iterations: int = 1000,
) -> tuple[Tensor, Potentials]:
    r"""Logarithm of the entropic plan whose marginals may differ from uniform ones, at a price.

    .. math::
        \arg\min_P \langle P, C\rangle + \varepsilon KL(P \| ab^T)
        + \rho \, KL(P 1 \| a) + \rho \, KL(P^T 1 \| b), \qquad a = 1/n, \; b = 1/m

    Args:
        cost: (n, m) or (B, n, m), C.
        epsilon: Entropic temperature, in units of the cost.
        rho: Price of mass that is not where it should be, in units of the cost. Far above the
            costs the plan is the balanced one; far below, what has no cheap partner is left out.
        potentials: A guess to start from, such as the last ones.
        tolerance: Largest change of a potential, relative to epsilon, at which iterations stop.
        iterations: Most iterations.

    Returns:
        The log plan, in float32 or better, and potentials f, g of the dual:
        :math:`P_{ij} = a_i b_j \exp((f_i + g_j - C_{ij}) / \varepsilon)`.

    References:
        Chizat et al., Scaling algorithms for unbalanced optimal transport (2018).
    """
    if not (0 < epsilon < math.inf and 0 < rho < math.inf):
        raise ValueError(f"epsilon {epsilon} and rho {rho} must be positive and finite")
    if cost.ndim not in (2, 3) or not cost.numel():
        raise ValueError(f"a cost of shape {tuple(cost.shape)}; give (n, m) or (batch, n, m)")
    scaled = cost.detach().to(torch.promote_types(cost.dtype, torch.float32)) / epsilon
    columns = torch.zeros_like(scaled[..., 0, :])
    if potentials is not None:
        columns = (potentials[1].detach().to(columns) / epsilon).nan_to_num(0.0, 0.0, 0.0)
    damping = rho / (rho + epsilon)
    count, width = math.log(scaled.shape[-2]), math.log(scaled.shape[-1])
    rows = torch.zeros_like(scaled[..., 0])
    for number in range(1, iterations + 1):
        before = columns
        rows = -damping * ((columns[..., None, :] - scaled).logsumexp(-1) - width)
        columns = -damping * ((rows[..., :, None] - scaled).logsumexp(-2) - count)
        if number % CHECK_EVERY == 0 and bool((columns - before).abs().max() <= tolerance):
            break
    log_plan = rows[..., :, None] + columns[..., None, :] - scaled - count - width
    return log_plan, Potentials(epsilon * rows, epsilon * columns)


def unbalanced_distillation_from(
    teacher_log_plan: Tensor,
    cost: Tensor,
    *,
    epsilon: float,
    rho: float,
    potentials: tuple[Tensor, Tensor] | None = None,
    tolerance: float = 1e-9,
    iterations: int = 1000,
) -> tuple[Tensor, Potentials]:
    r"""Fenchel-Young loss of unbalanced entropic transport, in nats.

    .. math::
        KL(P_{old} \| P) + \frac{\rho}{\varepsilon} \left( KL(P_{old} 1 \| P 1)
        + KL(P_{old}^T 1 \| P^T 1) \right), \qquad \frac{\partial}{\partial C}
        = \frac{P_{old} - P}{\varepsilon}

    with the KL of measures that need not have equal mass. It is the Bregman divergence of what
    transport minimises beside the cost: zero only at the teacher's plan, and its gradient follows
    from the envelope theorem, so no iteration is recorded.

    Args:
        teacher_log_plan: From :func:`log_unbalanced_plan`, same shape as ``cost``; constant.
        cost: (n, m) or (B, n, m) of the model that learns.
        epsilon: As for the teacher.
        rho: As for the teacher.
        potentials: See :func:`log_unbalanced_plan`, as for the rest.
        tolerance: Largest change of a potential, relative to epsilon.
        iterations: Most iterations.

    Returns:
        A scalar, or (B,) for a batch of costs, and the potentials for the next step.
    """
    if teacher_log_plan.shape != cost.shape:
        raise ValueError(
            f"a teacher of shape {tuple(teacher_log_plan.shape)} for a cost of shape "
            f"{tuple(cost.shape)}; distillation compares the same items, in the same order"
        )
    log_plan, solved = log_unbalanced_plan(
        cost,
        epsilon=epsilon,
        rho=rho,
        potentials=potentials,
        tolerance=tolerance,
        iterations=iterations,
    )
    teacher = teacher_log_plan.detach().to(log_plan.dtype)
    value = divergence_of_logs(teacher, log_plan).sum((-2, -1))
    for side in (-1, -2):
        marginals = divergence_of_logs(teacher.logsumexp(side), log_plan.logsumexp(side))
        value = value + rho / epsilon * marginals.sum(-1)
    # Nothing is added to the value; what has a gradient is linear in the cost.
    wide = cost.to(log_plan.dtype)
    linear = ((teacher.exp() - log_plan.exp()) / epsilon * (wide - wide.detach())).sum((-2, -1))
    return value + linear, solved
