"""Interpolate: weights between those before and after a stage."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from continual_mm.learning.learner import Learner
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.registry import checked
from continual_mm.space.naming import canonical, named_parameters
from continual_mm.space.space import JointSpace


class Interpolate(Plugin):
    """Weights between two stages' ends: WiSE-FT of Wortsman et al. (arXiv 2109.01903).

    ``w = (1 - a) w_new + a w_old`` for every weight and every buffer of floating-point numbers that
    existed before the stage. Between the two ends of one fine-tuning the loss hardly rises, so the
    weights between them keep more of the old than they lose of the new. Modules that the stage
    added stay as trained.

    Args:
        towards_old: a, how far back to go, in [0, 1]: 0 keeps the new weights, 1 the old ones.
    """

    saved = ("old",)

    def __init__(self, *, towards_old: float = 0.3) -> None:
        super().__init__()
        self.towards_old = checked("interpolate.towards_old", towards_old)
        self._old: dict[str, Tensor] = {}

    def before_train_dataset_adaptation(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Copy the weights before the space grows."""
        if self.towards_old and strategy.space.modalities:
            self._old = numbers(strategy.space)

    def after_training_epoch(self, strategy: Learner, *args: Any, **kwargs: Any) -> None:
        """Interpolate: before ``after_training_exp``, in which others take the space as teacher."""
        move_back(strategy.space, self._old, self.towards_old)


def numbers(space: JointSpace) -> dict[str, Tensor]:
    """Copies of weights and buffers of floating-point numbers, by canonical name."""
    return {name: value.clone() for name, value in _numbers(space)}


def move_back(space: JointSpace, old: Mapping[str, Tensor], share: float) -> None:
    """Move a space's numbers a share, in [0, 1], of the way to ``old`` ones; new ones stay."""
    new = dict(_numbers(space))
    for name, value in old.items():
        before = value.to(new[name].device)
        mixed = torch.lerp(new[name], before, share)
        if name == "centroids":
            mixed = _with_lengths(mixed, before, new[name], share)
        new[name].copy_(mixed)


def _numbers(space: JointSpace) -> Iterator[tuple[str, Tensor]]:
    """Weights and buffers of floating-point numbers by canonical name, without their gradient."""
    for name, parameter in named_parameters(space):
        yield name, parameter.detach()
    for name, buffer in space.named_buffers():
        if buffer.is_floating_point():
            yield canonical(name), buffer


def _with_lengths(mixed: Tensor, old: Tensor, new: Tensor, share: float) -> Tensor:
    """Rows between two of length one at length one again; the ends themselves stay bit for bit."""
    wanted = torch.lerp(new.norm(dim=1), old.norm(dim=1), share)
    found = mixed.norm(dim=1)
    factors: Tensor = wanted / found.masked_fill(found == 0, 1.0)
    return mixed * factors[:, None]
