import pytest
import torch
from torch.nn import functional

from continual_mm.losses.reconstruction import reconstruction_loss, squared_error


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_is_the_squared_distance_of_the_directions():
    prediction, target = random(5, 4, seed=1), random(5, 4, seed=2)
    directions = [vectors / vectors.norm(dim=1, keepdim=True) for vectors in (prediction, target)]
    expected = (directions[0] - directions[1]).square().sum(1).mean()
    torch.testing.assert_close(reconstruction_loss(prediction, target), expected)


@pytest.mark.parametrize(("factor", "expected"), [(1.0, 0.0), (7.0, 0.0), (-0.1, 4.0)])
def test_the_same_direction_costs_nothing_and_the_opposite_costs_four(factor, expected):
    target = random(100, 300).float()
    loss = reconstruction_loss(factor * target, target)
    assert 0 <= loss <= 4
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_a_modality_a_thousand_times_larger_weighs_no_more():
    prediction, target = random(5, 4, seed=1), random(5, 4, seed=2)
    loss = reconstruction_loss(prediction, target)
    torch.testing.assert_close(reconstruction_loss(prediction, 1000 * target), loss)
    torch.testing.assert_close(reconstruction_loss(1000 * prediction, target), loss)
    published = 50 * functional.mse_loss(1000 * prediction, 1000 * target)
    assert published > 1e5 * 50 * functional.mse_loss(prediction, target)


def test_it_agrees_with_finite_differences():
    target = random(3, 2, 4)
    prediction = random(3, 2, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: reconstruction_loss(x, target), (prediction,))


def test_rows_without_direction_count_two_and_hand_on_no_gradient():
    prediction = torch.tensor([[0.0, 0.0], [1.0, 1.0]], requires_grad=True)
    loss = reconstruction_loss(prediction, torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    loss.backward()
    assert loss.item() == 2.0
    assert prediction.grad is not None
    assert torch.equal(prediction.grad, torch.zeros(2, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_is_computed_in_single_precision_under_autocast(dtype):
    prediction, target = random(8, 64, seed=1).to(dtype), random(8, 64).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = reconstruction_loss(prediction, target)
    assert loss.dtype == torch.float32
    exact = 2 - 2 * functional.cosine_similarity(prediction.double(), target.double()).mean()
    assert loss.item() == pytest.approx(exact.item(), abs=1e-6)


def test_the_published_error_is_a_mean_of_squares_whose_gradient_reaches_the_target():
    prediction, target = random(3, 4, seed=1).requires_grad_(), random(3, 4).requires_grad_()
    loss = squared_error(prediction, target)
    torch.testing.assert_close(loss, functional.mse_loss(prediction, target))
    loss.backward()
    assert prediction.grad is not None
    assert target.grad is not None
    torch.testing.assert_close(target.grad, (target - prediction).detach() * 2 / 12)
    torch.testing.assert_close(prediction.grad, -target.grad)


def test_the_published_error_is_computed_in_single_precision():
    loss = squared_error(torch.full((2, 3), 300.0).half(), torch.zeros(2, 3).half())
    assert loss.item() == 90000.0  # more than half precision can hold


@pytest.mark.parametrize("loss", [reconstruction_loss, squared_error])
def test_shapes_that_would_broadcast_are_refused(loss):
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(3, 1, 4\)"):
        loss(torch.ones(3, 4), torch.ones(3, 1, 4))
