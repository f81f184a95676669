"""Assignments to prototypes: transport under given masses is a softmax with biases."""

import pytest
import torch
from torch.nn.functional import normalize

from continual_mm.losses.distillation import prototype_divergence, prototype_potentials
from continual_mm.losses.transport import log_transport_plan


def units(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def test_assignments_fill_the_prototypes_with_their_masses() -> None:
    rows, centroids = units(40, 6), units(3, 6, seed=1)
    masses = torch.tensor([0.7, 0.2, 0.1])
    biases = prototype_potentials(rows, centroids, masses, epsilon=0.1, tolerance=1e-6)
    shares = ((rows @ centroids.T + biases) / 0.1).softmax(1).mean(0)
    torch.testing.assert_close(shares.float(), masses, rtol=1e-3, atol=1e-4)


def test_a_plan_with_masses_is_that_of_textbook_matrix_scaling() -> None:
    cost = 1 - units(5, 4) @ units(3, 4, seed=1).T
    masses = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    kernel, right = (-cost / 0.1).exp(), torch.ones(3, dtype=torch.float64)
    for _ in range(400):
        left = 0.2 / (kernel @ right)
        right = masses / (kernel.T @ left)
    plan, _ = log_transport_plan(cost, epsilon=0.1, column_masses=masses)
    torch.testing.assert_close(plan.exp(), left[:, None] * kernel * right, rtol=1e-8, atol=0)
    with pytest.raises(ValueError, match=r"\(3,\) masses"):
        log_transport_plan(cost.T, epsilon=0.1, column_masses=masses)


def test_the_divergence_agrees_with_its_definition_and_with_finite_differences() -> None:
    teacher, student, centroids = units(6, 4), units(6, 4, seed=1), units(3, 4, seed=2)
    biases = torch.tensor([0.1, -0.2, 0.0], dtype=torch.float64)
    old, new = (((z @ centroids.T + biases) / 0.3).softmax(1) for z in (teacher, student))
    expected = (old * (old / new).log()).sum() / 6

    def loss(rows: torch.Tensor) -> torch.Tensor:
        return prototype_divergence(rows, teacher, centroids, biases, epsilon=0.3)

    torch.testing.assert_close(loss(student), expected)
    assert torch.autograd.gradcheck(loss, (student.requires_grad_(),))


def test_at_the_teacher_it_is_zero_and_pulls_nowhere() -> None:
    rows = units(6, 4).requires_grad_()
    loss = prototype_divergence(rows, rows, units(3, 4, seed=2), torch.zeros(3), epsilon=0.1)
    loss.backward()
    assert abs(loss.item()) < 1e-12
    assert rows.grad.abs().max() < 1e-12
