"""NT-Xent against a loop over its definition; the learned weight against derivations by hand."""

import math

import pytest
import torch

from continual_mm.losses.nt_xent import nt_xent, uncertain

GENERATOR = torch.Generator().manual_seed(4)


def drawn(items, size=6):
    return torch.randn(items, size, generator=GENERATOR, dtype=torch.float64)


def by_definition(first, second, temperature):
    """The mean over all 2N views, candidate by candidate."""
    views = [row / math.sqrt(sum(x * x for x in row)) for row in (*first.numpy(), *second.numpy())]
    count, total = len(first), 0.0
    for i, view in enumerate(views):
        partner = (i + count) % (2 * count)
        odds = [
            math.exp(sum(view * other) / temperature) for j, other in enumerate(views) if j != i
        ]
        total -= math.log(math.exp(sum(view * views[partner]) / temperature) / sum(odds))
    return total / (2 * count)


@pytest.mark.parametrize(("items", "temperature"), [(1, 0.5), (2, 0.07), (7, 0.3)])
def test_it_is_the_mean_over_both_views_with_the_negatives_of_both_sides(items, temperature):
    first, second = drawn(items), 3 * drawn(items)
    found = nt_xent(first, second, temperature=temperature).item()
    assert found == pytest.approx(by_definition(first, second, temperature))


def test_equal_embeddings_have_the_loss_of_chance_and_a_single_item_none():
    alike = torch.ones(5, 3)
    assert nt_xent(alike, alike).item() == pytest.approx(math.log(2 * 5 - 1))
    assert nt_xent(drawn(1), drawn(1)).item() == pytest.approx(0.0, abs=1e-12)
    assert nt_xent(drawn(0), drawn(0)).item() == 0.0


def test_neither_scale_nor_the_order_of_the_views_matters():
    first, second = drawn(6), drawn(6)
    value = nt_xent(first, second)
    torch.testing.assert_close(nt_xent(second, 100 * first), value)


def test_its_gradient_is_that_of_finite_differences():
    pair = drawn(3).requires_grad_(), drawn(3).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, temperature=0.5), pair)


@pytest.mark.parametrize(("loss", "sigma"), [(0.1, 0.70), (0.5, 1.32), (1.0, 1.77), (2.0, 2.38)])
def test_the_deviation_at_which_the_gradient_vanishes_solves_its_cubic(loss, sigma):
    low, high = 0.0, 10.0  # of sigma^3 = 2 loss (1 + sigma), by bisection
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if middle**3 < 2 * loss * (1 + middle) else (low, middle)
    assert low == pytest.approx(sigma, abs=0.005)  # the specification's figures
    log_sigma = torch.tensor(math.log(low), dtype=torch.float64, requires_grad=True)
    uncertain(torch.tensor(loss, dtype=torch.float64), log_sigma).backward()
    assert log_sigma.grad.item() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("log_sigma", [-1.0, 0.0, 2.0])
def test_the_gradient_of_the_deviation_is_the_one_derived_by_hand(log_sigma):
    loss = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    s = torch.tensor(log_sigma, dtype=torch.float64, requires_grad=True)
    uncertain(loss, s).backward()
    sigma = math.exp(log_sigma)
    # d/ds of L exp(-2 s) + log(1 + exp s)
    assert s.grad.item() == pytest.approx(-2 * 0.8 / sigma**2 + sigma / (1 + sigma))
    assert loss.grad.item() == pytest.approx(1 / sigma**2)


def test_steps_of_any_size_leave_the_deviation_above_zero():
    s = torch.tensor(0.0, requires_grad=True)
    optimizer = torch.optim.SGD([s], lr=5.0)
    for _ in range(20):
        optimizer.zero_grad()
        uncertain(torch.tensor(0.01), s).backward()
        optimizer.step()
        assert s.exp().item() > 0
        assert s.isfinite()
