"""Distances from a teacher: of embeddings, of similarities, of assignments to prototypes."""

import numpy as np
import pytest
import torch
from torch.nn.functional import kl_div, normalize

from continual_mm.losses.distillation import (
    prototype_divergence,
    prototype_potentials,
    relational_distance,
    row_divergence,
)
from continual_mm.losses.transport import log_transport_plan


def test_the_distance_is_the_mean_squared_change_of_the_cosine_of_two_items():
    rng = np.random.default_rng(3)
    new, old = (rng.standard_normal((5, 3)) for _ in range(2))
    changes = [
        (new[i] @ new[j] - old[i] @ old[j]) ** 2 for i in range(5) for j in range(5) if i != j
    ]
    found = relational_distance(torch.from_numpy(new), torch.from_numpy(old))
    assert float(found) == pytest.approx(np.mean(changes))


def divergence(new, old, temperature):
    """By torch's own: mean over rows, one direction."""
    old, new = (each / temperature for each in (old, new))
    return kl_div(new.log_softmax(1), old.log_softmax(1), reduction="batchmean", log_target=True)


def test_the_divergence_is_torchs_in_both_directions():
    generator = torch.Generator().manual_seed(3)
    new, old = (torch.rand(9, 9, generator=generator) for _ in range(2))
    found = row_divergence(new, old, temperature=0.2, right_only=False)
    expected = divergence(new, old, 0.2) + divergence(new.T, old.T, 0.2)
    torch.testing.assert_close(found, expected)


def test_queries_that_the_teacher_got_wrong_count_as_if_the_student_agreed():
    generator = torch.Generator().manual_seed(3)
    new, old = (torch.rand(9, 9, generator=generator) for _ in range(2))
    old += 0.4 * torch.eye(9)
    expected = torch.tensor(0.0)
    for here, there in ((new, old), (new.T, old.T)):
        wrong = there.argmax(1) != torch.arange(9)
        assert 0 < int(wrong.sum()) < 9
        expected += divergence(here, torch.where(wrong[:, None], here, there), 0.2)
    torch.testing.assert_close(row_divergence(new, old, temperature=0.2), expected)


def units(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def test_assignments_fill_the_prototypes_with_their_masses():
    rows, centroids = units(40, 6), units(3, 6, seed=1)
    masses = torch.tensor([0.7, 0.2, 0.1])
    biases = prototype_potentials(rows, centroids, masses, epsilon=0.1, tolerance=1e-6)
    shares = ((rows @ centroids.T + biases) / 0.1).softmax(1).mean(0)
    torch.testing.assert_close(shares.float(), masses, rtol=1e-3, atol=1e-4)


def test_a_plan_with_masses_is_that_of_textbook_matrix_scaling():
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


def test_the_divergence_agrees_with_its_definition_and_with_finite_differences():
    teacher, student, centroids = units(6, 4), units(6, 4, seed=1), units(3, 4, seed=2)
    biases = torch.tensor([0.1, -0.2, 0.0], dtype=torch.float64)
    old, new = (((z @ centroids.T + biases) / 0.3).softmax(1) for z in (teacher, student))
    expected = (old * (old / new).log()).sum() / 6

    def loss(rows):
        return prototype_divergence(rows, teacher, centroids, biases, epsilon=0.3)

    torch.testing.assert_close(loss(student), expected)
    assert torch.autograd.gradcheck(loss, (student.requires_grad_(),))
