"""Zero-shot classification from names of classes."""

import numpy as np
import pytest
import torch

from continual_mm.metrics.classification import correctly_classified, mean_by_class


def test_an_item_belongs_to_the_class_that_is_most_similar():
    similarity = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    classes = torch.arange(40) % 5
    expected = (similarity.argmax(1) == classes).double()
    assert torch.equal(correctly_classified(similarity, classes), expected)


def test_a_collapsed_model_is_as_accurate_as_chance():
    classes = torch.arange(12) % 4
    right = correctly_classified(torch.ones(12, 4), classes)
    assert right.mean() == 0.25


def test_several_names_of_a_class_are_one_prototype():
    generator = torch.Generator().manual_seed(1)
    items, names = torch.randn(6, 3, generator=generator), torch.randn(5, 3, generator=generator)
    classes = torch.tensor([1, 0, 1, 1, 0])
    means = torch.stack([names[classes == each].mean(0) for each in (0, 1)])
    found = mean_by_class(items @ names.T, classes, 2)
    np.testing.assert_allclose(found, items @ means.T, rtol=1e-5)


@pytest.mark.parametrize("names", [(1, 2, 3), (1, 3, 5, 7), (1, 3), (9, 1, 4)])
def test_equally_similar_classes_share_however_many_names_they_have(names):
    """0.1 seven times over is not 0.7 in float32, and the class with most names would win."""
    count = len(names)
    of_name = torch.arange(count).repeat_interleave(torch.tensor(names))
    alike = torch.rand(60, 1, generator=torch.Generator().manual_seed(3)).expand(-1, len(of_name))
    means = mean_by_class(alike, of_name, count)
    assert torch.equal(means, alike[:, :1].double().expand(-1, count))
    right = correctly_classified(means, torch.arange(60) % count)
    assert right.unique().tolist() == [1 / count]


def test_what_is_no_number_cannot_be_classified():
    similarity = torch.tensor([[0.5, 0.1], [0.2, torch.nan]])
    with pytest.raises(ValueError, match="row 1: NaN cannot be ranked"):
        correctly_classified(similarity, torch.tensor([0, 0]))
