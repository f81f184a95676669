"""The published DAVEnet: residual convolutions over a spectrogram, batch statistics and all."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from continual_mm.space.temporal import stage_channels

KERNEL = 9


class DavenetBlock(nn.Module):
    """Two convolutions beside a shortcut: (n, c_in, time) -> (n, c_out, time / stride)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        half = KERNEL // 2
        self.conv1 = _convolution(inputs, outputs, KERNEL, stride=stride, padding=half)
        self.bn1 = nn.BatchNorm1d(outputs)
        self.conv2 = _convolution(outputs, outputs, KERNEL, padding=half)
        self.bn2 = nn.BatchNorm1d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1:
            self.downsample = nn.Sequential(
                _convolution(inputs, outputs, 1, stride=stride), nn.BatchNorm1d(outputs)
            )

    def forward(self, values: Tensor) -> Tensor:
        """Convolve; the result is not negative."""
        hidden = self.bn1(self.conv1(values)).relu()
        return torch.relu(self.bn2(self.conv2(hidden)) + self.downsample(values))


class Davenet(nn.Module):
    """ResDAVEnet as AVLnet and MCN use it; modules are called as in their state dicts.

    They write the convolutions in two dimensions, of which one has length one; here they have one.
    Each stage of two blocks halves the time, rounded up, so depth 4 turns 1000 frames into 63.
    ``batchnorm1`` is in the published state dicts, but nothing ever went through it.

    Args:
        mels: Values per time step.
        width: Channels of the first layer and the first stage; published 128.
        depth: Stages, each after the first doubling the channels; published 4.

    Attributes:
        channels: Channels of the last stage.
    """

    def __init__(self, mels: int, *, width: int, depth: int) -> None:
        super().__init__()
        channels = stage_channels(width, depth)
        self.channels = channels[-1]
        self.batchnorm1 = nn.BatchNorm1d(1)
        self.conv1 = _convolution(mels, width, 1, area=mels)
        self.bn1 = nn.BatchNorm1d(width)
        self.stages = tuple(f"layer{number}" for number in range(1, depth + 1))
        for name, (narrow, wide) in zip(self.stages, pairwise(channels), strict=True):
            blocks = DavenetBlock(narrow, wide, stride=2), DavenetBlock(wide, wide, stride=1)
            self.add_module(name, nn.Sequential(*blocks))

    def forward(self, values: Tensor) -> Tensor:
        """(n, time, mels) -> (n, time', channels), not negative."""
        hidden = self.bn1(self.conv1(values.transpose(1, 2))).relu()
        for name in self.stages:
            hidden = self.get_submodule(name)(hidden)
        return torch.transpose(hidden, 1, 2)


def _convolution(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int = 0, area: int = 0
) -> nn.Conv1d:
    """Without bias, its weights normal with variance 2 / (area of the published kernel * outputs).

    The first published kernel spans all mels, which here are its input channels.
    """
    convolution = nn.Conv1d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False)
    nn.init.normal_(convolution.weight, std=(2 / ((area or kernel) * outputs)) ** 0.5)
    return convolution
