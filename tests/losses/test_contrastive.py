import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from continual_mm.losses.contrastive import masked_margin_softmax, unit


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def cross_entropies(similarity, margin):
    count = len(similarity)
    shifted = similarity - margin * torch.eye(count, dtype=similarity.dtype)
    target = torch.arange(count)
    return functional.cross_entropy(shifted, target) + functional.cross_entropy(shifted.T, target)


@given(st.integers(1, 9), st.floats(0, 3), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_it_is_the_sum_of_the_two_cross_entropies(count, margin, seed):
    similarity = 5 * random(count, count, seed=seed)
    loss = masked_margin_softmax(similarity, margin=margin)
    torch.testing.assert_close(loss, cross_entropies(similarity, margin))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_swallow_the_margin(dtype):
    similarity = (8 + random(32, 32)).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = masked_margin_softmax(similarity)
    assert loss.dtype == torch.float32
    exact = cross_entropies(similarity.double(), 0.001)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)


def test_doubles_stay_doubles_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert masked_margin_softmax(random(3, 3)).dtype == torch.float64


def test_huge_similarities_stay_finite():
    similarity = torch.full((4, 4), 1e30).fill_diagonal_(-1e30)
    assert masked_margin_softmax(similarity).isfinite()


@pytest.mark.parametrize("shape", [(3, 4), (3,), (2, 3, 3), (0, 0)])
def test_a_matrix_that_is_not_square_is_refused_by_shape(shape):
    with pytest.raises(ValueError, match=str(shape).replace("(", r"\(").replace(")", r"\)")):
        masked_margin_softmax(torch.zeros(shape))


def test_unit_vectors_have_length_one_and_half_types_are_widened():
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-6, 0.0]], dtype=torch.float16)
    directions = unit(vectors)
    assert directions.dtype == torch.float32
    torch.testing.assert_close(directions, torch.tensor([[0.6, 0.8], [0.0, 0.0], [1.0, 0.0]]))


def test_a_vector_of_zero_gets_no_gradient_and_leaves_the_others_theirs():
    a, b = random(4, 3, seed=1), random(4, 3, seed=2)
    a[2] = 0
    a.requires_grad_()
    masked_margin_softmax(10 * unit(a) @ unit(b).T).backward()
    assert a.grad is not None
    assert torch.equal(a.grad[2], torch.zeros(3, dtype=torch.float64))
    assert 1e-6 < a.grad[[0, 1, 3]].abs().max() < 1e3
