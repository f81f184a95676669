"""A teacher's plan mixed with the right partners, and the items that it gets right."""

import pytest
import torch

from continual_mm.losses.transport import log_transport_plan, plan_distillation_from
from continual_mm.losses.trust import right_items, trusted_plan


def cost(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_is_the_convex_combination_with_the_right_partners_and_keeps_both_marginals():
    log_plan, _ = log_transport_plan(cost(2, 6, 6), epsilon=0.1)
    mixed = trusted_plan(log_plan, 0.3).exp()
    expected = 0.3 * log_plan.exp() + 0.7 * torch.eye(6, dtype=torch.float64) / 6
    torch.testing.assert_close(mixed, expected)
    sixth = torch.full((2, 6), 1 / 6, dtype=torch.float64)
    torch.testing.assert_close(mixed.sum(1), sixth)
    torch.testing.assert_close(mixed.sum(2), sixth)


def test_full_trust_changes_nothing_and_none_leaves_the_right_partners_alone():
    log_plan, _ = log_transport_plan(cost(5, 5).float(), epsilon=0.05)
    assert torch.equal(trusted_plan(log_plan, 1.0), log_plan)
    torch.testing.assert_close(trusted_plan(log_plan, 0.0).exp(), torch.eye(5) / 5)


@pytest.mark.parametrize("trust", [0.0, 0.4])
def test_the_gradient_of_its_distillation_agrees_with_finite_differences(trust):
    teacher = trusted_plan(log_transport_plan(cost(5, 5), epsilon=0.1)[0], trust)
    live = cost(5, 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda c: plan_distillation_from(teacher, c, epsilon=0.1)[0], (live,)
    )


def test_a_teacher_that_is_wrong_pulls_towards_the_right_partner_instead():
    swapped = 1 - torch.eye(2, dtype=torch.float64).flip(0)
    believed, _ = log_transport_plan(swapped, epsilon=0.2)
    slopes = []
    for trust in (1.0, 0.2):
        live = swapped.clone().requires_grad_()
        plan_distillation_from(trusted_plan(believed, trust), live, epsilon=0.2)[0].backward()
        slopes.append(live.grad[0, 0].item())
    assert slopes[0] == pytest.approx(0, abs=1e-9)
    assert slopes[1] > 0.1  # descent lowers the cost of the right pair


def test_what_cannot_be_mixed_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        trusted_plan(torch.zeros(2, 3), 0.5)
    with pytest.raises(ValueError, match=r"trust 1\.5"):
        trusted_plan(torch.zeros(2, 2), 1.5)


def test_an_item_is_right_if_both_of_its_directions_are():
    """Against argmax in either direction; a swap of two items makes both wrong."""
    plan, _ = log_transport_plan(cost(3, 12, 12, seed=4), epsilon=0.1)
    plan = plan + 1.5 * torch.eye(12, dtype=torch.float64)
    here = torch.arange(12)
    expected = (plan.argmax(1) == here) & (plan.argmax(2) == here)
    assert torch.equal(right_items(plan), expected)
    assert 0 < expected.sum() < expected.numel()
    swapped = torch.eye(4)[[0, 2, 1, 3]]
    assert right_items(swapped).tolist() == [True, False, False, True]
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        right_items(torch.zeros(2, 3))
