"""Distillation of an entropic transport plan: which items are matched must not change."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from continual_mm.system.imports import in_parts

with in_parts("ot"):  # all of it takes scikit-learn, pandas and a second or two
    from ot.batch import solve_batch

FARTHEST = 20.0  # how far the largest logarithm of a row or column of the kernel may lie from 0
UNDERFLOW = 0.9
"""Part of the range of exponents that the kernel may use: below it an entry would count as zero,
which a plan far from the kernel can need."""
CHECK_EVERY = 10  # iterations between two checks of convergence, as in POT


@torch.no_grad()
def log_scalings(
    log_kernel: Tensor, columns: Tensor, *, tolerance: float, iterations: int
) -> tuple[Tensor, Tensor] | None:
    r"""Logarithms of what a kernel's rows and columns are multiplied by to become a plan.

    .. math::
        u \leftarrow \frac{1/n}{K v}, \qquad v \leftarrow \frac{b}{K^T u}, \qquad K = e^L

    The same iterations as in the log domain, and as many, at a quarter of their cost for 128 items.
    Where good potentials were taken off a cost, K is nearly the plan already; then nothing can
    overflow or underflow (Schmitzer, Stabilized sparse scaling algorithms, 2019).

    Args:
        log_kernel: (B, n, m), L.
        columns: (B, m), b, the columns' masses.
        tolerance: Euclidean norm of the error of the row sums at which iterations stop.
        iterations: Most iterations.

    Returns:
        log u, (B, n), and log v, (B, m); None where the kernel is too far from a plan, or a number
        is not finite.
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
        if number % CHECK_EVERY == 0:
            error = torch.linalg.vector_norm(u * (kernel @ v) - mass, dim=-2).max()
            if bool(error < tolerance):
                break
    found = u.log()[..., 0], v.log()[..., 0]
    return found if all(bool(part.isfinite().all()) for part in found) else None


class Potentials(NamedTuple):
    r"""Dual potentials f, (n,) or (B, n), and g of a plan, in units of the cost, without gradient.

    The plan is :math:`P_{ij} = \exp((f_i + g_j - C_{ij}) / \varepsilon)`.
    """

    rows: Tensor
    columns: Tensor


def plan_distillation(
    teacher_cost: Tensor,
    cost: Tensor,
    *,
    epsilon: float,
    tolerance: float | None = None,
    iterations: int = 1000,
) -> Tensor:
    r"""Divergence :math:`KL(P_{old} \| P_{new})` of two entropic transport plans, in nats.

    .. math::
        P(C) = \arg\min_{P \in U(1/n, 1/m)} \langle P, C\rangle - \varepsilon H(P), \qquad
        \frac{\partial KL}{\partial C} = \frac{P_{old} - P_{new}}{\varepsilon}

    Zero means that every item is matched to the same partners, with the same certainty, as
    before. The gradient is this closed form (the divergence is the Fenchel-Young loss of entropic
    transport): no iteration is recorded. Rotating both modalities together costs nothing, while
    permuting or rotating one of them does. The plan depends on the whole batch, so compare
    batches of one size.

    Args:
        teacher_cost: (n, m) or (B, n, m), such as one minus the cosines of the old model; constant.
        cost: The same of the model that learns.
        epsilon: Entropic temperature in units of the cost; about that of the contrastive loss
            (0.05 to 0.1). Far smaller and the plan is a permutation without gradient, far larger
            and it is uniform and says nothing.
        tolerance: Euclidean norm of the error of the row sums, 1/n each, at which the solver
            stops; columns are exact. By default 1e-6, and 1e-12 in float64. It is checked every
            tenth iteration, which synchronises with the device.
        iterations: Most iterations of the solver. The plans are those of the last one, converged
            or not; a plan that is nearly a permutation takes hundreds.

    Returns:
        A scalar, or (B,) for a batch of costs, in float32 or better.

    >>> cost = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    >>> plan_distillation(cost, cost.flip(0), epsilon=0.1)
    tensor(9.9991)
    """
    teacher, guess = log_transport_plan(
        teacher_cost, epsilon=epsilon, tolerance=tolerance, iterations=iterations
    )
    kl, _ = plan_distillation_from(
        teacher,
        cost,
        epsilon=epsilon,
        potentials=guess,
        tolerance=tolerance,
        iterations=iterations,
    )
    return kl


def plan_distillation_from(
    teacher_log_plan: Tensor,
    cost: Tensor,
    *,
    epsilon: float,
    potentials: tuple[Tensor, Tensor] | None = None,
    tolerance: float | None = None,
    iterations: int = 1000,
) -> tuple[Tensor, Potentials]:
    """Distil as :func:`plan_distillation` does, from a plan that is already known.

    In a training loop the teacher's plan of a set of anchors is solved once, and each step starts
    from the potentials of the step before. They cannot change the result, only how soon it is
    reached, so those of similar anchors serve as well.

    Args:
        teacher_log_plan: From :func:`log_transport_plan`, same shape as ``cost``; constant.
        cost: (n, m) or (B, n, m).
        epsilon: As for the teacher.
        potentials: A guess, such as what this function or :func:`log_transport_plan` returned
            last; entries that are not finite are ignored.
        tolerance: See :func:`plan_distillation`, as for ``iterations``.
        iterations: Most iterations.

    Returns:
        The divergence, and the potentials for the next step.
    """
    if teacher_log_plan.shape != cost.shape:
        raise ValueError(
            f"a teacher of shape {tuple(teacher_log_plan.shape)} for a cost of shape "
            f"{tuple(cost.shape)}; distillation compares the same items, in the same order"
        )
    log_plan, solved = log_transport_plan(
        cost, epsilon=epsilon, potentials=potentials, tolerance=tolerance, iterations=iterations
    )
    kl: Tensor = _PlanDivergence.apply(cost.to(log_plan.dtype), teacher_log_plan, log_plan, epsilon)
    return kl, solved


def transport_plan(cost: Tensor, *, epsilon: float, iterations: int = 1000) -> Tensor:
    """Entropic transport plans of total mass 1 between uniform weights, without gradient.

    Of the shape of ``cost``, (n, m) or (B, n, m): rows sum to 1/n, columns to 1/m. For the
    arguments see :func:`plan_distillation`.

    >>> transport_plan(torch.zeros(2, 4), epsilon=0.1)
    tensor([[0.1250, 0.1250, 0.1250, 0.1250],
            [0.1250, 0.1250, 0.1250, 0.1250]])
    """
    log_plan, _ = log_transport_plan(cost, epsilon=epsilon, iterations=iterations)
    return log_plan.exp()


@torch.no_grad()
def log_transport_plan(
    cost: Tensor,
    *,
    epsilon: float,
    column_masses: Tensor | None = None,
    potentials: tuple[Tensor, Tensor] | None = None,
    tolerance: float | None = None,
    iterations: int = 1000,
) -> tuple[Tensor, Potentials]:
    """Logarithm of :func:`transport_plan`, finite where the plan itself underflows to zero.

    Args:
        cost: (n, m) or (B, n, m).
        epsilon: Entropic temperature, in units of the cost.
        column_masses: (m,) positive, with sum 1, where they are not 1/m each.
        potentials: A guess to start from. It is taken off the cost, which leaves the plan as it
            is but leaves the solver little to do.
        tolerance: See :func:`plan_distillation`, as for ``iterations``.
        iterations: Most iterations.

    Returns:
        The log plan, shape of ``cost``, in float32 or better, and its potentials.
    """
    _check(cost, epsilon, tolerance, iterations)
    wide = cost.detach().to(torch.promote_types(cost.dtype, torch.float32))
    guess = _cold(wide) if potentials is None else _warm(potentials, wide)
    rest = wide - guess.rows[..., :, None] - guess.columns[..., None, :]
    if tolerance is None:
        tolerance = 1e-12 if wide.dtype == torch.float64 else 1e-6
    rows, columns = (
        part.reshape(*wide.shape[:-2], -1)
        for part in _solved(rest, epsilon, column_masses, tolerance, iterations)
    )
    scaled = rows[..., :, None] + columns[..., None, :] - rest / epsilon
    # The solver ends with exact columns, but for a tiny epsilon they do not survive this sum.
    log_plan = scaled.log_softmax(dim=-2)
    if column_masses is None:
        log_plan = log_plan - math.log(wide.shape[-1])
    else:
        log_plan = log_plan + column_masses.to(wide).log()
    return log_plan, Potentials(guess.rows + epsilon * rows, guess.columns + epsilon * columns)


def _solved(
    rest: Tensor, epsilon: float, masses: Tensor | None, tolerance: float, iterations: int
) -> tuple[Tensor, Tensor]:
    """Potentials (B, n), (B, m) in units of epsilon."""
    costs = rest if rest.ndim == 3 else rest[None]
    known = _masses(masses, costs)
    with torch.autocast(rest.device.type, enabled=False):
        quick = log_scalings(-costs / epsilon, known, tolerance=tolerance, iterations=iterations)
        if quick is not None:
            return quick
        found: tuple[Tensor, Tensor] = solve_batch(
            costs,
            epsilon,
            b=known,
            max_iter=iterations,
            tol=tolerance,
            method="log_sinkhorn",
            grad="detach",
        ).potentials
    return found


def _check(cost: Tensor, epsilon: float, tolerance: float | None, iterations: int) -> None:
    """Refuse what the solver would answer with nonsense; the cost's entries are not read."""
    if cost.ndim not in (2, 3) or not cost.numel():
        raise ValueError(
            f"a cost of shape {tuple(cost.shape)}; transport needs (n, m) or (batch, n, m)"
        )
    if not 0 < epsilon < math.inf:
        raise ValueError(
            f"epsilon {epsilon} must be positive and finite; for cosines 0.05 to 0.1 is usual"
        )
    if tolerance is not None and not tolerance >= 0:
        raise ValueError(f"tolerance {tolerance} must not be negative; omit it for the default")
    if iterations < 1:
        raise ValueError(f"{iterations} iterations cannot make a plan; give at least 1")


def _masses(masses: Tensor | None, costs: Tensor) -> Tensor:
    """The masses of the columns, (B, m), for every cost of a batch; uniform ones for None."""
    if masses is None:
        return costs.new_full((costs.shape[0], costs.shape[2]), 1 / costs.shape[2])
    if masses.shape != costs.shape[-1:]:
        raise ValueError(f"{tuple(masses.shape)} masses for a cost of shape {tuple(costs.shape)}")
    return masses.to(costs).expand(costs.shape[0], -1)


def divergence_of_logs(teacher: Tensor, student: Tensor) -> Tensor:
    """Summands of KL(teacher || student) of two positive measures, from their logarithms.

    The difference of the masses is in each, so none is negative: a small sum is not lost in larger
    terms.
    """
    growth = student - teacher
    old = teacher.exp()
    near = old * (growth.expm1() - growth)
    far = student.exp() - old - old * growth
    return torch.where(growth < 1, near, far)


def _cold(cost: Tensor) -> Potentials:
    """A guess that leaves the solver small numbers, with small rounding errors."""
    return Potentials(cost.amin(dim=-1), torch.zeros_like(cost[..., 0, :]))


def _warm(potentials: tuple[Tensor, Tensor], cost: Tensor) -> Potentials:
    """Make a guess fit to be taken off a cost."""
    rows, columns = (
        part.detach().to(cost).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0) for part in potentials
    )
    if rows.shape != cost.shape[:-1] or columns.shape != cost[..., 0, :].shape:
        raise ValueError(
            f"potentials of shapes {tuple(rows.shape)} and {tuple(columns.shape)} for a cost of "
            f"shape {tuple(cost.shape)}; start without when the number of items changes"
        )
    return Potentials(rows, columns)


class _PlanDivergence(torch.autograd.Function):
    """KL of two log plans, differentiable with respect to the cost of the second."""

    @staticmethod
    def forward(
        ctx: Any, cost: Tensor, teacher_log_plan: Tensor, log_plan: Tensor, epsilon: float
    ) -> Tensor:
        del cost  # it is only here to receive the gradient
        teacher_log_plan = teacher_log_plan.to(log_plan.dtype)
        teacher, plan = teacher_log_plan.exp(), log_plan.exp()
        ctx.save_for_backward(teacher - plan)
        ctx.epsilon = epsilon
        return divergence_of_logs(teacher_log_plan, log_plan).sum((-2, -1)).clamp(min=0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (change,) = ctx.saved_tensors
        return grad[..., None, None] * change / ctx.epsilon, None, None, None
