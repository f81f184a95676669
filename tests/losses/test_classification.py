"""The cross-entropy of the mean of several modalities' logits."""

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from continual_mm.losses.classification import mean_logit_cross_entropy

ALL = torch.arange(5)


def logits(count, items=5, classes=4):
    generator = torch.Generator().manual_seed(count)
    return [
        torch.randn(items, classes, generator=generator, dtype=torch.float64) for _ in range(count)
    ]


def test_every_branch_gets_the_residual_of_the_item_by_its_number_of_modalities():
    """(softmax - onehot) / (M N), by hand."""
    labels = torch.tensor([0, 3, 2, 2, 1])
    parts = [part.requires_grad_() for part in logits(3)]
    mean_logit_cross_entropy(parts, [ALL] * 3, labels).backward()
    mean = torch.stack([part.detach() for part in parts]).mean(0)
    expected = (mean.softmax(1) - one_hot(labels, 4)) / (3 * 5)
    for part in parts:
        torch.testing.assert_close(part.grad, expected)


def test_it_is_no_mean_of_the_cross_entropies():
    """By convexity it is below that mean unless the modalities agree."""
    labels, parts = torch.tensor([0, 3, 2, 2, 1]), logits(2)
    apart = torch.stack([cross_entropy(part, labels) for part in parts]).mean()
    assert mean_logit_cross_entropy(parts, [ALL] * 2, labels) < apart - 0.01
    same = mean_logit_cross_entropy([parts[0]] * 2, [ALL] * 2, labels)
    torch.testing.assert_close(same, cross_entropy(parts[0], labels))


def test_a_missing_modality_leaves_the_mean_to_the_others():
    labels = torch.tensor([0, 3, 2, 2, 1])
    first, second = (part.requires_grad_() for part in logits(2))
    rows = [torch.tensor([0, 1, 3]), torch.tensor([1, 2])]  # item 4 has nothing
    loss = mean_logit_cross_entropy([first[:3], second[:2]], rows, labels)
    items = torch.stack([first[0], (first[1] + second[0]) / 2, second[1], first[2]])
    torch.testing.assert_close(loss, cross_entropy(items, labels[:4]))
    loss.backward()
    residual = (first[0].softmax(0) - one_hot(labels[0], 4)) / 4
    torch.testing.assert_close(first.grad[0], residual.detach())
    assert not first.grad[3:].any()


def test_items_without_a_class_are_left_out_and_none_are_no_loss():
    parts = [part.requires_grad_() for part in logits(2)]
    labels = torch.tensor([0, -1, 2, -1, 1])
    known = torch.tensor([0, 2, 4])
    mean = torch.stack(parts).mean(0)[known]
    torch.testing.assert_close(
        mean_logit_cross_entropy(parts, [ALL] * 2, labels), cross_entropy(mean, labels[known])
    )
    nothing = mean_logit_cross_entropy(parts, [ALL] * 2, torch.full((5,), -1))
    nothing.backward()
    assert nothing == 0
    assert not parts[0].grad.any()


def test_at_chance_it_is_the_logarithm_of_the_number_of_classes():
    loss = mean_logit_cross_entropy([torch.zeros(5, 4)] * 2, [ALL] * 2, torch.zeros(5).long())
    torch.testing.assert_close(loss, torch.tensor(4.0).log())


@pytest.mark.parametrize(
    ("parts", "rows"),
    [([], []), ([torch.zeros(5, 4), torch.zeros(5, 3)], [ALL] * 2), ([torch.zeros(5, 4)], [])],
)
def test_what_does_not_go_together_is_refused(parts, rows):
    with pytest.raises(ValueError, match=r"give \(n, K\) each"):
        mean_logit_cross_entropy(parts, rows, torch.zeros(5).long())
