"""Plans and their divergence, against textbook scaling, POT and finite differences."""

import math
import re

import numpy as np
import ot
import pytest
import torch
from ot.batch import solve_batch
from torch.nn import functional

from continual_mm.losses.transport import (
    Potentials,
    log_scalings,
    log_transport_plan,
    plan_distillation,
    plan_distillation_from,
    transport_plan,
)


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def aligned(count=48, features=16, seed=0):
    """Two modalities of the same items: alike, but not the same."""
    generator = torch.Generator().manual_seed(seed)
    items, first, second = (
        torch.randn(count, features, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    return (
        functional.normalize(items + 0.5 * first, dim=1),
        functional.normalize(items + 0.5 * second, dim=1),
    )


def cosine_cost(pair):
    return 1 - pair[0] @ pair[1].T


def rotation(features=16, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(
        torch.randn(features, features, generator=generator, dtype=torch.float64)
    ).Q


def textbook_plan(cost, epsilon, iterations=400):
    """Sinkhorn by matrix scaling; every iteration is recorded for the gradient."""
    kernel = (-cost / epsilon).exp()
    rows, columns = cost.shape
    right = torch.ones(columns, dtype=cost.dtype)
    for _ in range(iterations):
        left = 1 / (rows * (kernel @ right))
        right = 1 / (columns * (kernel.T @ left))
    return left[:, None] * kernel * right


def divergence(old, new):
    return (old * (old / new).log()).sum()


def test_the_plan_is_the_one_of_textbook_matrix_scaling():
    cost = random(5, 9)
    plan = transport_plan(cost, epsilon=0.1)
    torch.testing.assert_close(plan, textbook_plan(cost, 0.1), rtol=1e-8, atol=0)
    torch.testing.assert_close(plan.sum(1), torch.full((5,), 1 / 5, dtype=torch.float64))
    torch.testing.assert_close(plan.sum(0), torch.full((9,), 1 / 9, dtype=torch.float64))


def test_a_plan_of_small_epsilon_costs_what_the_exact_plan_costs():
    cost = random(12, 12)
    exact = ot.emd2(np.full(12, 1 / 12), np.full(12, 1 / 12), cost.numpy())
    plan = transport_plan(cost, epsilon=0.005, iterations=5000)
    assert (plan * cost).sum().item() == pytest.approx(exact, rel=1e-2)


def test_the_divergence_is_the_one_of_textbook_plans():
    teacher, cost = random(6, 8), random(6, 8, seed=1)
    expected = divergence(textbook_plan(teacher, 0.15), textbook_plan(cost, 0.15))
    torch.testing.assert_close(plan_distillation(teacher, cost, epsilon=0.15), expected)


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (2, 4, 3)])
@pytest.mark.parametrize("epsilon", [0.07, 0.5])
def test_its_gradient_agrees_with_finite_differences(shape, epsilon):
    teacher, cost = random(*shape), random(*shape, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda values: plan_distillation(teacher, values, epsilon=epsilon), (cost,)
    )


def test_the_teacher_gets_no_gradient():
    teacher, cost = random(4, 4).requires_grad_(), random(4, 4, seed=1).requires_grad_()
    plan_distillation(teacher, cost, epsilon=0.1).backward()
    assert teacher.grad is None
    log_plan = random(4, 4).log().requires_grad_()
    plan_distillation_from(log_plan, cost, epsilon=0.1)[0].backward()
    assert log_plan.grad is None


def test_a_batch_of_costs_gives_what_each_gives_alone():
    teacher, cost = random(3, 4, 5), random(3, 4, 5, seed=1)
    together = cost.clone().requires_grad_()
    alone = cost.clone().requires_grad_()
    weights = torch.tensor([1.0, -2.0, 0.5])
    batched = plan_distillation(teacher, together, epsilon=0.1)
    singles = torch.stack(
        [plan_distillation(t, c, epsilon=0.1) for t, c in zip(teacher, alone, strict=True)]
    )
    assert batched.shape == (3,)
    torch.testing.assert_close(batched, singles)
    (weights * batched).sum().backward()
    (weights * singles).sum().backward()
    torch.testing.assert_close(together.grad, alone.grad)


def test_single_precision_resolves_a_divergence_of_a_billionth():
    pair = aligned(count=64)
    drift = 5e-5 * aligned(count=64, seed=9)[0]
    before = cosine_cost(pair).float()
    after = cosine_cost((functional.normalize(pair[0] + drift, dim=1), pair[1])).float()
    exact = plan_distillation(before.double(), after.double(), epsilon=0.2)
    assert 1e-9 < exact < 2e-9
    assert plan_distillation(before, after, epsilon=0.2).item() == pytest.approx(
        exact.item(), rel=0.1
    )
    same, _ = plan_distillation_from(
        log_transport_plan(before, epsilon=0.2)[0], before, epsilon=0.2
    )
    assert 0 <= same < 1e-11


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("epsilon", [1e-2, 1e-4, 1e-6])
def test_a_tiny_epsilon_stays_finite(dtype, epsilon):
    teacher, cost = random(10, 10).to(dtype), random(10, 10, seed=1).to(dtype).requires_grad_()
    loss = plan_distillation(teacher, cost, epsilon=epsilon, iterations=100)
    assert loss.isfinite()
    assert loss > 1
    if dtype != torch.float16 or epsilon > 1e-5:
        loss.backward()
        assert cost.grad is not None
        assert cost.grad.isfinite().all()


@pytest.mark.parametrize("epsilon", [1e-1, 1e-4, 1e-9])
def test_mass_and_columns_are_exact_however_tiny_epsilon_is(epsilon):
    plan = transport_plan(random(7, 10).float(), epsilon=epsilon, iterations=20)
    torch.testing.assert_close(plan.sum(0), torch.full((10,), 0.1))


def test_a_huge_cost_common_to_all_does_not_drown_the_plan():
    cost = random(8, 8).mul(1024).round().div(1024).float()
    torch.testing.assert_close(
        transport_plan(cost + 4096, epsilon=0.1), transport_plan(cost, epsilon=0.1)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_is_solved_in_single_precision_under_autocast(dtype):
    pair = aligned()
    moved = functional.normalize(pair[0] + 0.05 * rotation().repeat(3, 1), dim=1)
    teacher, cost = cosine_cost(pair).to(dtype), cosine_cost((moved, pair[1])).to(dtype)
    live = cost.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = plan_distillation(teacher, live, epsilon=0.2)
    loss.backward()
    exact_cost = cost.double().requires_grad_()
    exact = plan_distillation(teacher.double(), exact_cost, epsilon=0.2)
    exact.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-3)
    assert live.grad is not None
    assert live.grad.dtype == dtype
    assert exact_cost.grad is not None
    error = (live.grad.double() - exact_cost.grad).norm() / exact_cost.grad.norm()
    assert error < 2 * torch.finfo(dtype).eps + 1e-3


def test_the_potentials_are_the_plan():
    cost = random(2, 5, 7)
    log_plan, potentials = log_transport_plan(cost, epsilon=0.1)
    rebuilt = potentials.rows[:, :, None] + potentials.columns[:, None, :] - cost
    torch.testing.assert_close(log_plan, rebuilt / 0.1)


def test_a_warm_start_changes_neither_value_nor_gradient():
    teacher, cost = random(9, 9), random(9, 9, seed=1)
    log_plan, _ = log_transport_plan(teacher, epsilon=0.1)
    results = []
    guesses = [None, log_transport_plan(cost + 0.1 * random(9, 9, seed=2), epsilon=0.1)[1]]
    guesses.append(Potentials(5 * random(9, seed=3), -7 * random(9, seed=4)))
    for guess in guesses:
        live = cost.clone().requires_grad_()
        loss, _ = plan_distillation_from(log_plan, live, epsilon=0.1, potentials=guess)
        loss.backward()
        results.append((loss.detach(), live.grad))
    for loss, grad in results[1:]:
        torch.testing.assert_close(loss, results[0][0])
        torch.testing.assert_close(grad, results[0][1])


def test_a_thousand_warm_starts_in_single_precision_do_not_drift():
    cost = random(8, 8).float()
    log_plan, potentials = log_transport_plan(cost, epsilon=0.1)
    start = potentials
    for _ in range(1000):
        loss, potentials = plan_distillation_from(
            log_plan, cost, epsilon=0.1, potentials=potentials, iterations=1
        )
    assert loss < 1e-6
    assert (potentials.rows - start.rows).abs().max() < 1e-3


def test_one_broken_step_does_not_spoil_the_next():
    teacher, cost = random(6, 6), random(6, 6, seed=1)
    log_plan, _ = log_transport_plan(teacher, epsilon=0.2)
    broken, potentials = plan_distillation_from(
        log_plan, cost.clone().fill_(math.nan), epsilon=0.2, iterations=5
    )
    assert broken.isnan()
    loss, _ = plan_distillation_from(log_plan, cost, epsilon=0.2, potentials=potentials)
    torch.testing.assert_close(loss, plan_distillation(teacher, cost, epsilon=0.2))


@pytest.mark.parametrize("iterations", [1, 7, 1000])
def test_it_makes_the_iterations_that_pot_makes(iterations):
    costs = random(2, 5, 7)
    masses = torch.full((2, 7), 1 / 7, dtype=torch.float64)
    found = log_scalings(-costs / 0.1, masses, tolerance=1e-9, iterations=iterations)
    theirs = solve_batch(
        costs, 0.1, max_iter=iterations, tol=1e-9, method="log_sinkhorn", grad="detach"
    )
    for own, other in zip(found, theirs.potentials, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("entry", [-800.0, 800.0, float("nan"), float("inf")])
def test_a_kernel_that_floats_cannot_hold_is_left_to_others(entry):
    kernel = torch.zeros(1, 3, 3)
    kernel[0, 1] = entry
    masses = torch.full((1, 3), 1 / 3)
    assert log_scalings(kernel, masses, tolerance=1e-6, iterations=10) is None


def test_a_plan_is_the_same_from_a_guess_that_is_too_far_off_for_it():
    costs = random(6, 6)
    plan, guess = log_transport_plan(costs, epsilon=0.02)
    far = (guess.rows + 10 * random(6, seed=1), guess.columns)
    again, _ = log_transport_plan(costs, epsilon=0.02, potentials=far)
    torch.testing.assert_close(again, plan, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("epsilon", [0.005, 0.01, 0.02, 0.05])
def test_costs_that_lie_far_apart_have_the_plan_of_the_log_domain(epsilon):
    costs = torch.tensor([[0.0, 2.0, 2.0], [0.0, 2.0, 2.0], [0.0, 0.0, 0.0]])
    plan, _ = log_transport_plan(costs, epsilon=epsilon, iterations=100_000)
    # One of two equal rows cannot have the first column; the third row has what is left.
    expected = torch.tensor([[1.0, 0.5, 0.5], [1.0, 0.5, 0.5], [0.0, 1.0, 1.0]]) / 6
    torch.testing.assert_close(plan.exp(), expected, rtol=0, atol=1e-4)


def test_only_the_relative_cost_in_units_of_epsilon_matters():
    teacher, cost = random(6, 8), random(6, 8, seed=1)
    shifted = cost + 10 * random(6, 1, seed=2) - 10 * random(1, 8, seed=3)
    expected = plan_distillation(teacher, cost, epsilon=0.2)
    torch.testing.assert_close(plan_distillation(teacher, shifted, epsilon=0.2), expected)
    torch.testing.assert_close(plan_distillation(4 * teacher, 4 * cost, epsilon=0.8), expected)


def test_rotating_both_modalities_costs_nothing_and_changing_one_of_them_much():
    first, second = aligned()
    moved = [(first @ rotation(), second @ rotation()), (first @ rotation(), second)]
    moved.append((first.roll(1, 0), second))  # a permutation: the same cloud
    old = cosine_cost((first, second))
    both, *one = (plan_distillation(old, cosine_cost(each), epsilon=0.2) for each in moved)
    assert both < 1e-9
    assert min(one) > 1


@pytest.mark.parametrize(
    ("cost", "options", "message"),
    [
        *((random(3, 3), {"epsilon": e}, f"epsilon {e} ") for e in (0.0, -0.1, math.nan, math.inf)),
        *(
            (torch.zeros(s), {"epsilon": 0.1}, re.escape(str(s)))
            for s in ((3,), (2, 2, 3, 3), (0, 3))
        ),
        (random(3, 3), {"epsilon": 0.1, "tolerance": -1.0}, "tolerance -1"),
        (random(3, 3), {"epsilon": 0.1, "iterations": 0}, "0 iterations"),
        (
            random(4, 4),
            {"epsilon": 0.1, "potentials": (torch.zeros(3), torch.zeros(3))},
            r"\(3,\).*\(4, 4\)",
        ),
        (random(4, 3), {"epsilon": 0.1, "column_masses": torch.ones(4) / 4}, r"\(4,\) masses"),
    ],
)
def test_what_has_no_plan_is_refused(cost, options, message):
    with pytest.raises(ValueError, match=message):
        log_transport_plan(cost, **options)


def test_teacher_and_cost_of_different_items_are_refused():
    with pytest.raises(ValueError, match=r"\(3, 3\).*\(4, 4\).*same items"):
        plan_distillation(random(3, 3), random(4, 4), epsilon=0.1)
