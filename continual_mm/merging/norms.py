"""Batch norms, folded into the layers in front of them while units are fused."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from continual_mm.merging.groups import Group
from continual_mm.merging.maps import SMALLEST
from continual_mm.space.space import JointSpace

State = dict[str, Tensor]
"""The state of a space in float64."""


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """A batch norm and the convolution without bias in front of it."""

    layer: str
    norm: str
    eps: float

    @property
    def statistics(self) -> tuple[str, ...]:
        """What is in the layer's weight and the norm's bias while it is folded."""
        return tuple(f"{self.norm}.{each}" for each in ("weight", "running_mean", "running_var"))

    def fold(self, state: State) -> None:
        r"""Let the layer's weight and the norm's bias be what both do to an item.

        .. math::
            W' = W \gamma / \sigma, \quad b' = \beta - \mu \gamma / \sigma, \quad
            \sigma = \sqrt{v + \epsilon}

        Mean and spread of what they give, :math:`\beta` and :math:`|\gamma|`, and
        :math:`\sigma` take the place of the statistics.
        """
        gain, mean, variance = (state[name] for name in self.statistics)
        spread, bias = (variance + self.eps).sqrt(), state[f"{self.norm}.bias"]
        self._multiply(state, gain / spread)
        state[f"{self.norm}.bias"] = bias - mean * gain / spread
        state |= dict(zip(self.statistics, (gain.abs(), bias, spread), strict=True))

    def unfold(self, state: State) -> None:
        """Take the norm out again: the same function, with a mean and spread to train on from."""
        gain, mean, spread = (state[name] for name in self.statistics)
        rate = torch.where(gain > 0, spread / gain.clamp(min=SMALLEST), torch.zeros_like(gain))
        self._multiply(state, rate)
        running = (mean - state[f"{self.norm}.bias"]) * rate
        state[f"{self.norm}.bias"] = mean
        variance = (spread.square() - self.eps).clamp(min=0)
        state |= dict(zip(self.statistics, (gain, running, variance), strict=True))

    def _multiply(self, state: State, rate: Tensor) -> None:
        name = f"{self.layer}.weight"
        state[name] = state[name] * rate.reshape(-1, *[1] * (state[name].dim() - 1))


def batch_norms(space: JointSpace, group: Group) -> list[BatchNorm]:
    """The batch norms among what writes a group, each with the layer that it follows."""
    found, layer = [], ""
    for place in group.writers:
        owner = place.tensor.rpartition(".")[0]
        module = space.get_submodule(owner) if place.tensor != "centroids" else None
        if isinstance(module, nn.Conv1d):
            layer = owner
        elif isinstance(module, nn.BatchNorm1d) and place.tensor.endswith(".weight"):
            found.append(BatchNorm(layer, owner, module.eps))
    return found
