"""Unbalanced plans, against POT, finite differences and the balanced limit."""

import ot
import pytest
import torch

from continual_mm.losses.transport import plan_distillation, transport_plan
from continual_mm.losses.unbalanced import log_unbalanced_plan, unbalanced_distillation_from


def cost(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def solved(matrix, rho):
    return ot.solve(
        matrix, reg=0.1, reg_type="KL", unbalanced=rho, unbalanced_type="KL",
        max_iter=20000, tol=1e-13,
    )  # fmt: skip


@pytest.mark.parametrize("rho", [0.2, 1.0])
def test_the_plan_is_that_of_pot(rho):
    matrix = cost(5, 8)
    log_plan, _ = log_unbalanced_plan(matrix, epsilon=0.1, rho=rho, tolerance=1e-13)
    torch.testing.assert_close(log_plan.exp(), solved(matrix, rho).plan, rtol=1e-5, atol=1e-8)


def test_the_loss_is_the_fenchel_young_loss_of_the_value_that_pot_finds():
    """Differences of the loss are those of <P_old, C> - UOT(C), in units of epsilon."""
    old, new, other = cost(5, 5), cost(5, 5, seed=1), cost(5, 5, seed=2)
    teacher, _ = log_unbalanced_plan(old, epsilon=0.1, rho=0.5)

    def loss(matrix):
        return unbalanced_distillation_from(teacher, matrix, epsilon=0.1, rho=0.5)[0]

    def value(matrix):
        plan = solved(matrix, 0.5).plan
        fifth = torch.full((5,), 0.2, dtype=torch.float64)

        def kl(p, q):
            return (p * (p / q).log() - p + q).sum()

        prices = 0.5 * (kl(plan.sum(0), fifth) + kl(plan.sum(1), fifth))
        optimum = (plan * matrix).sum() + 0.1 * kl(plan, fifth[:, None] * fifth) + prices
        return ((teacher.exp() * matrix).sum() - optimum) / 0.1

    expected = value(new) - value(other)
    torch.testing.assert_close(loss(new) - loss(other), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("shape", [(4, 4), (2, 3, 5)])
@pytest.mark.parametrize("rho", [0.1, 2.0])
def test_its_gradient_agrees_with_finite_differences(shape, rho):
    teacher, _ = log_unbalanced_plan(cost(*shape), epsilon=0.2, rho=rho)
    live = cost(*shape, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda c: unbalanced_distillation_from(
            teacher, c, epsilon=0.2, rho=rho, tolerance=1e-13, iterations=5000
        )[0],
        (live,),
    )


def test_a_high_price_gives_balanced_plans_and_their_divergence():
    old, new = cost(5, 5), cost(5, 5, seed=1)
    teacher, _ = log_unbalanced_plan(old, epsilon=0.2, rho=500.0, iterations=20000, tolerance=1e-13)
    balanced = transport_plan(old, epsilon=0.2)
    torch.testing.assert_close(teacher.exp(), balanced, rtol=2e-2, atol=1e-4)
    value, _ = unbalanced_distillation_from(
        teacher, new, epsilon=0.2, rho=500.0, iterations=20000, tolerance=1e-13
    )
    expected = plan_distillation(old, new, epsilon=0.2)
    torch.testing.assert_close(value, expected, rtol=2e-2, atol=1e-4)


def test_an_item_without_a_partner_is_left_out_and_moves_no_other():
    matrix = 1 - torch.eye(5, dtype=torch.float64)
    matrix[4] = 10.0
    log_plan, _ = log_unbalanced_plan(matrix, epsilon=0.07, rho=0.3)
    sums = log_plan.exp().sum(1)
    assert sums[4] < 1e-3 < 0.1 < sums[:4].min()


@pytest.mark.parametrize("rho", [0.0, -1.0, float("inf")])
def test_a_price_that_is_not_positive_and_finite_is_refused(rho):
    with pytest.raises(ValueError, match="rho"):
        log_unbalanced_plan(cost(3, 3), epsilon=0.1, rho=rho)


def test_costs_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        log_unbalanced_plan(cost(3), epsilon=0.1, rho=1.0)
    with pytest.raises(ValueError, match="same items"):
        unbalanced_distillation_from(cost(3, 3), cost(4, 4), epsilon=0.1, rho=1.0)
