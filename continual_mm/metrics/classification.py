"""Zero-shot classification: an item gets the class whose name is most similar to it."""

from torch import Tensor
from torch.nn.functional import one_hot


def mean_by_class(similarity: Tensor, classes: Tensor, count: int) -> Tensor:
    """(items, classes) float64 mean similarity to the names of each class.

    Classes whose names are all equally similar have the same mean, however many names they have:
    float64 adds float32 without loss.

    Args:
        similarity: (items, names).
        classes: (names,) the class of each name, 0..count-1; each class has a name.
        count: Number of classes.
    """
    member = one_hot(classes, count).double()
    return (similarity.double() @ member) / member.sum(0)


def correctly_classified(similarity: Tensor, classes: Tensor) -> Tensor:
    """(items,) 1 where an item's own class is the most similar one, else 0.

    Where n classes are equally similar and none more so, an item of theirs counts 1/n: as often a
    draw among them would be right. A collapsed model thus has the accuracy of chance.

    Args:
        similarity: (items, classes).
        classes: (items,) the class of each item, from 0.

    Raises:
        ValueError: If a similarity is NaN.

    >>> import torch
    >>> correctly_classified(torch.tensor([[0.9, 0.1], [0.4, 0.4]]), torch.tensor([0, 1]))
    tensor([1.0000, 0.5000], dtype=torch.float64)
    """
    bad = similarity.isnan().any(1).nonzero()
    if len(bad):
        raise ValueError(
            f"similarities, row {int(bad[0])}: NaN cannot be ranked; look for an embedding that is "
            "not finite"
        )
    own = similarity.gather(1, classes[:, None])
    first = ~(similarity > own).any(1)
    return first.double() / (similarity == own).sum(1)
