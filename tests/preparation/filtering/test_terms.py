"""HYPE's terms against loops, and against what they should say of items made for it."""

import math

import numpy as np
import pytest
import torch

from continual_mm.losses.lorentz import exponential_map
from continual_mm.preparation.filtering import terms
from continual_mm.preparation.filtering.terms import hype_score, hype_terms


def points(seed, count=12):
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    return exponential_map(v, curvature=1.0)


def by_hand(x, y):
    """Distance, exterior angle and half aperture of x, in plain numbers, at curvature -1."""
    x, y = x.tolist(), y.tolist()
    xt, yt = (math.sqrt(1 + sum(a * a for a in point)) for point in (x, y))
    inner = sum(a * b for a, b in zip(x, y, strict=True)) - xt * yt
    length = math.sqrt(sum(a * a for a in x))
    angle = math.acos((yt + inner * xt) / (length * math.sqrt(inner * inner - 1)))
    return math.acosh(-inner), angle, math.asin(min(1, 0.2 / length))


@pytest.mark.parametrize("block", [1, 1 << 21])
def test_they_are_means_over_all_references_but_a_pairs_own(monkeypatch, block):
    monkeypatch.setattr(terms, "_BLOCK", block)
    texts, images, cosine = points(0), points(1), torch.linspace(-1, 1, 12)
    references = torch.tensor([3, 0, 8])
    found = hype_terms(texts, images, cosine, curvature=1.0, references=references)
    for row in range(12):
        others = [r for r in (3, 0, 8) if r != row]
        of_image = [by_hand(texts[r], images[row]) for r in others]
        of_text = [by_hand(texts[row], images[r]) for r in others]
        eps_image, eps_text = (np.mean([a - w for _, a, w in each]) for each in (of_image, of_text))
        distance = by_hand(texts[row], images[row])[0]
        assert found.other[row].item() == pytest.approx(eps_image, abs=1e-9)
        assert found.general[row].item() == pytest.approx(eps_text, abs=1e-9)
        assert found.distance[row].item() == pytest.approx(distance, abs=1e-9)
        expected = eps_image + eps_text - distance + cosine[row].item()
        assert found.score[row].item() == pytest.approx(expected, abs=1e-6)
    score = hype_score(texts, images, cosine, curvature=1.0, references=references)
    assert torch.equal(score, found.score)


def test_residuals_inside_of_cones_count_and_are_below_zero():
    direction = torch.tensor([1.0, 0.0], dtype=torch.float64)
    texts = torch.stack([0.3 * direction, 0.4 * direction, 0.5 * direction])
    images = 4 * texts
    found = hype_terms(texts, images, torch.zeros(3), curvature=1.0, references=torch.arange(3))
    apertures = torch.tensor([math.asin(0.2 / length) for length in (0.3, 0.4, 0.5)])
    torch.testing.assert_close(found.general, -apertures.double(), rtol=0, atol=1e-6)


def test_a_text_is_less_specific_the_nearer_it_is_to_the_root():
    images, references = points(0, count=40) * 3, torch.arange(40)
    found = [
        hype_terms(images / far, images, torch.zeros(40), curvature=1.0, references=references)
        for far in (3, 10, 30)
    ]
    specific, middle, vague = (each.general for each in found)
    assert bool((vague < middle).all())
    assert bool((middle < specific).all())


def test_a_pair_cannot_be_compared_with_itself_alone():
    with pytest.raises(ValueError, match="1 references are too few"):
        hype_terms(
            points(0), points(1), torch.zeros(12), curvature=1.0, references=torch.tensor([0])
        )
