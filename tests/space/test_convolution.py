"""The tower for pictures: the mean of its views, whatever their number and order."""

import pytest
import torch
from torch.nn.functional import normalize

from continual_mm.definitions.modality import Kind, Modality
from continual_mm.definitions.scenario import SpaceSettings
from continual_mm.space.convolution import PictureEncoder, rescaled

SETTINGS = SpaceSettings(dim=8, width=4)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return PictureEncoder(Modality("depth", Kind.FRAMES, (3, 12, 10)), SETTINGS).eval()


@pytest.fixture
def pictures():
    return torch.rand(4, 3, 12, 10, generator=torch.Generator().manual_seed(1))


def test_the_cosine_with_a_text_is_the_sum_over_views_up_to_a_factor_of_the_item(encoder, pictures):
    _, together = encoder(pictures, None)
    each = torch.stack([encoder(pictures[:, [view]], None)[1] for view in range(3)], dim=1)
    texts = normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(2)), dim=1)
    summed = (normalize(each, dim=2) @ texts.T).sum(1)
    cosine = normalize(together, dim=1) @ texts.T
    factors = summed / cosine
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors), rtol=1e-3, atol=1e-4)


def test_order_of_views_and_what_lies_behind_the_valid_ones_do_not_matter(encoder, pictures):
    _, found = encoder(pictures, None)
    torch.testing.assert_close(encoder(pictures[:, [2, 0, 1]], None)[1], found)
    padded = torch.cat([pictures, torch.full((4, 2, 12, 10), 9.0)], dim=1)
    torch.testing.assert_close(encoder(padded, torch.full((4,), 3))[1], found)


def test_pictures_in_colour_are_taken_and_what_are_no_pictures_is_refused():
    coloured = PictureEncoder(Modality("image", Kind.FRAMES, (2, 9, 9, 3)), SETTINGS)
    pooled, raw = coloured(torch.rand(5, 2, 9, 9, 3), None)
    assert (pooled.shape, raw.shape) == ((5, coloured.pooled), (5, 8))
    with pytest.raises(ValueError, match=r"takes \(views, height, width\).*'clip' is 7x50"):
        PictureEncoder(Modality("clip", Kind.FRAMES, (7, 50)), SETTINGS)


def test_a_picture_seen_from_twice_as_far_is_half_as_large_and_its_border_goes_on():
    picture = torch.zeros(2, 1, 6, 6)
    picture[:, :, 1:5, 1:5] = 1.0
    far, same = rescaled(picture, torch.tensor([2.0, 1.0]))
    assert far[0].sum() == 4  # 2 x 2 in the middle
    assert far[0, 2:4, 2:4].sum() == 4
    assert torch.equal(same, picture[1])
