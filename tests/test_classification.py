"""Zero-shot classification from names of classes."""

import numpy as np
import torch

from continual_mm.metrics.classification import mean_by_class, rightly_classified


def test_an_item_belongs_to_the_class_that_is_most_similar() -> None:
    similarity = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    classes = torch.arange(40) % 5
    expected = (similarity.argmax(1) == classes).double()
    assert torch.equal(rightly_classified(similarity, classes), expected)


def test_a_collapsed_model_is_as_accurate_as_chance() -> None:
    classes = torch.arange(12) % 4
    right = rightly_classified(torch.ones(12, 4), classes)
    assert right.mean() == 0.25


def test_several_names_of_a_class_are_one_prototype() -> None:
    generator = torch.Generator().manual_seed(1)
    items, names = torch.randn(6, 3, generator=generator), torch.randn(5, 3, generator=generator)
    classes = torch.tensor([1, 0, 1, 1, 0])
    means = torch.stack([names[classes == each].mean(0) for each in (0, 1)])
    found = mean_by_class(items @ names.T, classes, 2)
    np.testing.assert_allclose(found, items @ means.T, rtol=1e-5)
