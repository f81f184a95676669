import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from continual_mm.losses.contrastive import info_nce, masked_margin_softmax, unit


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def cross_entropies(similarity: torch.Tensor, margin: float) -> torch.Tensor:
    count = len(similarity)
    shifted = similarity - margin * torch.eye(count, dtype=similarity.dtype)
    target = torch.arange(count)
    return functional.cross_entropy(shifted, target) + functional.cross_entropy(shifted.T, target)


@given(st.integers(1, 9), st.floats(0, 3), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_it_is_the_sum_of_the_two_cross_entropies(count: int, margin: float, seed: int) -> None:
    similarity = 5 * random(count, count, seed=seed)
    loss = masked_margin_softmax(similarity, margin=margin)
    torch.testing.assert_close(loss, cross_entropies(similarity, margin))


def test_two_items_by_hand() -> None:
    similarity = torch.tensor([[2.0, 1.0], [0.0, 3.0]], dtype=torch.float64)
    rows = math.log(1 + math.exp(1 - 1.5)) + math.log(1 + math.exp(0 - 2.5))
    columns = math.log(1 + math.exp(0 - 1.5)) + math.log(1 + math.exp(1 - 2.5))
    loss = masked_margin_softmax(similarity, margin=0.5)
    assert loss.item() == pytest.approx((rows + columns) / 2)


def test_chance_is_twice_the_logarithm_of_the_batch_at_the_published_size() -> None:
    loss = masked_margin_softmax(torch.zeros(4096, 4096), margin=0.0)
    assert loss.item() == pytest.approx(16.64, abs=0.005)


def test_exchanging_the_modalities_changes_nothing() -> None:
    similarity = random(7, 7)
    torch.testing.assert_close(
        masked_margin_softmax(similarity), masked_margin_softmax(similarity.T)
    )


def test_its_gradient_is_the_closed_form_of_two_softmaxes() -> None:
    similarity = random(6, 6).requires_grad_()
    masked_margin_softmax(similarity, margin=0.3).backward()
    shifted = similarity.detach() - 0.3 * torch.eye(6)
    expected = (shifted.softmax(0) + shifted.softmax(1) - 2 * torch.eye(6)) / 6
    torch.testing.assert_close(similarity.grad, expected)


def test_the_published_margin_is_the_default() -> None:
    similarity = random(5, 5)
    torch.testing.assert_close(
        masked_margin_softmax(similarity), cross_entropies(similarity, 0.001)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_swallow_the_margin(dtype: torch.dtype) -> None:
    similarity = (8 + random(32, 32)).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = masked_margin_softmax(similarity)
    assert loss.dtype == torch.float32
    exact = cross_entropies(similarity.double(), 0.001)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)


def test_doubles_stay_doubles_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert masked_margin_softmax(random(3, 3)).dtype == torch.float64
        assert info_nce(random(3, 4), random(3, 4), temperature=0.1).dtype == torch.float64


def test_huge_similarities_stay_finite() -> None:
    similarity = torch.full((4, 4), 1e30).fill_diagonal_(-1e30)
    assert masked_margin_softmax(similarity).isfinite()


@pytest.mark.parametrize("shape", [(3, 4), (3,), (2, 3, 3), (0, 0)])
def test_a_matrix_that_is_not_square_is_refused_by_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=str(shape).replace("(", r"\(").replace(")", r"\)")):
        masked_margin_softmax(torch.zeros(shape))


def test_info_nce_is_the_mean_of_both_directions_of_the_scaled_cosines() -> None:
    a, b = random(6, 5, seed=1), random(6, 5, seed=2)
    cosines = functional.cosine_similarity(a[:, None], b[None], dim=-1)
    expected = cross_entropies(cosines / 0.07, 0.0) / 2
    torch.testing.assert_close(info_nce(a, b, temperature=0.07), expected)


def test_info_nce_of_equal_items_is_the_logarithm_of_the_batch() -> None:
    same = torch.ones(10, 3)
    loss = info_nce(same, same, temperature=0.07)
    assert loss.item() == pytest.approx(math.log(10))


def test_info_nce_knows_no_scale() -> None:
    a, b = random(6, 5, seed=1), random(6, 5, seed=2)
    scale = torch.logspace(-5, 5, 6, dtype=torch.float64)[:, None]
    torch.testing.assert_close(
        info_nce(scale * a, 1000 * b, temperature=0.1), info_nce(a, b, temperature=0.1)
    )


def test_info_nce_under_autocast_equals_info_nce_without() -> None:
    a, b = random(64, 32, seed=1).float(), random(64, 32, seed=2).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = info_nce(a, b, temperature=0.01)
    torch.testing.assert_close(loss, info_nce(a, b, temperature=0.01), rtol=0, atol=0)


def test_an_item_without_direction_is_at_chance_and_leaves_the_others_their_gradient() -> None:
    a, b = random(4, 3, seed=1), random(4, 3, seed=2)
    a[2] = 0
    a.requires_grad_()
    loss = info_nce(a, b, temperature=0.1)
    loss.backward()
    assert loss.isfinite()
    assert a.grad is not None
    assert torch.equal(a.grad[2], torch.zeros(3, dtype=torch.float64))
    assert 1e-6 < a.grad[[0, 1, 3]].abs().max() < 1e3


def test_a_learned_temperature_gets_its_gradient() -> None:
    a, b = random(6, 5, seed=1), random(6, 5, seed=2)
    temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: info_nce(a, b, temperature=t), (temperature,))


def test_info_nce_agrees_with_finite_differences() -> None:
    a, b = random(5, 4, seed=1).requires_grad_(), random(5, 4, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: info_nce(x, y, temperature=0.2), (a, b))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match=f"temperature {temperature}"):
        info_nce(torch.eye(2), torch.eye(2), temperature=temperature)


def test_batches_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        info_nce(torch.ones(2, 4), torch.ones(3, 4), temperature=0.1)


def test_unit_vectors_have_length_one_and_half_types_are_widened() -> None:
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-6, 0.0]], dtype=torch.float16)
    directions = unit(vectors)
    assert directions.dtype == torch.float32
    torch.testing.assert_close(directions, torch.tensor([[0.6, 0.8], [0.0, 0.0], [1.0, 0.0]]))
