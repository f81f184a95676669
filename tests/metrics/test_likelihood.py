"""Likelihood of right answers: values by hand and torch's cross-entropy."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from continual_mm.metrics.likelihood import fitted_log_likelihood, gain, row_log_likelihood


def similarities(count: int = 6) -> torch.Tensor:
    noise = torch.randn(count, count, generator=torch.Generator().manual_seed(0))
    return noise + torch.eye(count)


def test_it_is_the_cross_entropy_of_both_directions() -> None:
    found = row_log_likelihood(similarities(), 0.7)
    logits, answer = similarities().double() / 0.7, torch.arange(6)
    expected = -(
        cross_entropy(logits, answer, reduction="none")
        + cross_entropy(logits.T, answer, reduction="none")
    )
    torch.testing.assert_close(found, expected / 2)


def test_equal_similarities_are_chance() -> None:
    torch.testing.assert_close(
        fitted_log_likelihood(torch.ones(8, 8)), torch.full((8,), -math.log(8)).double()
    )


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_fitted_it_hardly_depends_on_the_spread(factor) -> None:
    first, second = (
        fitted_log_likelihood(each) for each in (similarities(), factor * similarities())
    )
    assert float(first.mean()) == pytest.approx(float(second.mean()), abs=0.01)


def test_a_gain_has_the_standard_error_of_its_mean() -> None:
    found = gain(torch.tensor([1.0, 2.0, 3.0, 6.0]), torch.tensor([0.0, 0.0, 0.0, 0.0]))
    assert found == pytest.approx((3.0, (14 / 3) ** 0.5 / 2))
    assert gain(torch.ones(1), torch.zeros(1)) == (1.0, math.inf)
