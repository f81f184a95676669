"""Convolution over time that sees neither padding nor the other rows of the batch."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from continual_mm.space.units import valid_steps


class ResidualBlock(nn.Module):
    """Two convolutions over time beside a shortcut: (n, c_in, time) -> (n, c_out, time / stride).

    The second convolution starts at zero, so a block starts as its shortcut and a stack of them
    needs no normalisation: no batch statistics to forget, nothing that padding could leak into.
    """

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int) -> None:
        super().__init__()
        half = kernel // 2
        self.conv1 = nn.Conv1d(inputs, outputs, kernel, stride=stride, padding=half)
        self.conv2 = nn.Conv1d(outputs, outputs, kernel, padding=half)
        nn.init.zeros_(self.conv2.weight)
        self.stride = stride
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv1d(inputs, outputs, 1)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """Convolve; ``mask`` (n, 1, time / stride) zeroes what lies beyond a row's length."""
        hidden = self.conv1(values).relu() * mask
        # A strided convolution of kernel 1 gives the same and costs more.
        shortcut = self.shortcut(values[:, :, :: self.stride])
        return torch.mul((self.conv2(hidden) + shortcut).relu(), mask)


def stage_channels(width: int, depth: int) -> list[int]:
    """Channels of the first layer and of each stage behind it, doubled from the second stage on.

    >>> stage_channels(128, 4)
    [128, 128, 256, 512, 1024]
    """
    return [width * 2 ** max(stage - 1, 0) for stage in range(depth + 1)]


class TemporalTrunk(nn.Module):
    """DAVEnet's shape (Harwath et al. 2018): a projection per step, then residual stages over time.

    The first layer spans the whole feature axis, as DAVEnet's convolution over all mels does; each
    stage after the first doubles the channels. The normalisation after the first layer makes the
    trunk indifferent to the input's scale.

    Args:
        features: Values per time step.
        width: Channels of the first layer and the first stage.
        depth: Number of stages.
        kernel: Odd length of the convolutions.
        stride: By how much each stage shortens the time.
    """

    def __init__(self, features: int, *, width: int, depth: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.stem = nn.Linear(features, width)
        self.norm = nn.LayerNorm(width)
        channels = stage_channels(width, depth)
        self.stages = nn.ModuleList(
            ResidualBlock(narrow, wide, kernel=kernel, stride=stride)
            for narrow, wide in pairwise(channels)
        )
        self.channels = channels[-1]

    def forward(self, values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(n, time, features), (n,) -> ((n, time', channels), (n, time') mask of valid steps)."""
        hidden = self.norm(self.stem(values)).transpose(1, 2).contiguous().relu()
        mask = valid_steps(lengths, hidden.shape[2])[:, None, :]
        hidden = hidden * mask
        for stage in self.stages:
            lengths = torch.div(lengths + self.stride - 1, self.stride, rounding_mode="floor")
            time = -(-hidden.shape[2] // self.stride)
            mask = valid_steps(lengths, time)[:, None, :]
            hidden = stage(hidden, mask)
        return hidden.transpose(1, 2), mask[:, 0, :]
