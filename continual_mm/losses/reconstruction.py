"""Reconstruction: how far a prediction made from an embedding is from its item's features."""

import torch
from torch import Tensor

from continual_mm.losses.contrastive import unit


def reconstruction_loss(prediction: Tensor, target: Tensor) -> Tensor:
    r"""Mean of :math:`2 - 2\cos(\text{prediction}, \text{target})`, in [0, 4].

    This is the squared distance of the two directions: 0 is perfect, 2 is unrelated. MCN
    (arXiv 2104.12671) publishes ``50 * mean squared error`` instead, whose value follows the
    square of a modality's scale: at initialisation audio is 97 % of the sum and 1600 times video.
    It also lets the gradient into the target, so that the loss falls when the target merely
    shrinks. Here a modality a thousand times larger weighs no more, and the target is a constant.

    Args:
        prediction: (..., features); the gradient goes here and nowhere else.
        target: The same shape. A target of zero has no direction: it counts 2, without gradient.

    Returns:
        The loss in float32 or better, a scalar.

    Raises:
        ValueError: If the shapes differ; broadcasting would compare the wrong items.

    >>> image = torch.tensor([[3.0, 4.0]])
    >>> reconstruction_loss(torch.tensor([[-4.0, 3.0]]), 1000 * image)
    tensor(2.)
    """
    _check(prediction, target)
    cosine = (unit(prediction) * unit(target.detach())).sum(-1)
    return (2 - 2 * cosine.clamp(-1, 1)).mean()


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error as MCN publishes it, in float32 or better; the target gets a gradient too.

    The published term is 50 times the sum of this over the modalities. The loss falls when the
    target merely shrinks, and a modality ten times larger weighs a hundred times as much;
    :func:`reconstruction_loss` has neither weakness. Shapes, (..., features), must agree.

    >>> squared_error(torch.tensor([[0.0, 4.0]]), torch.tensor([[3.0, 0.0]]))
    tensor(12.5000)
    """
    _check(prediction, target)
    wide = torch.promote_types(torch.promote_types(prediction.dtype, target.dtype), torch.float32)
    return (prediction.to(wide) - target.to(wide)).square().mean()


def _check(prediction: Tensor, target: Tensor) -> None:
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction of shape {tuple(prediction.shape)} for a target of shape "
            f"{tuple(target.shape)}; both need the same (..., features)"
        )
