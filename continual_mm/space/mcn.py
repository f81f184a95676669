"""The published towers of MCN (ICCV 2021), with their treatment of padding and of scale."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from continual_mm.definitions.modality import Modality
from continual_mm.definitions.scenario import SpaceSettings
from continual_mm.space.encoders import (
    Encoder,
    GatedUnit,
    VectorEncoder,
    masked_max,
    masked_mean,
    stage_channels,
    valid_steps,
)

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
    """ResDAVEnet as AVLnet and MCN use it; modules are named as in their state dicts.

    The published convolutions have a second dimension of length one. Published are a width of 128
    channels and a depth of 4 stages. Each stage halves the time, rounded up, and each after the
    first doubles the channels. ``batchnorm1`` is in the published state dicts, but never applied.
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
    """Without bias; weights normal, variance 2 / (area of the published kernel * outputs)."""
    convolution = nn.Conv1d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False)
    nn.init.normal_(convolution.weight, std=(2 / ((area or kernel) * outputs)) ** 0.5)
    return convolution


class PublishedFrames(VectorEncoder):
    """The video tower on frames, pooled by the maximum over time as the published reader does."""

    def __init__(self, modality: Modality, settings: SpaceSettings) -> None:
        super().__init__(modality, settings, norm=False)

    def forward(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, time, ...) -> (n, features), (n, D)."""
        frames = values.flatten(2)
        largest = masked_max(frames, valid_steps(_all(frames, lengths), frames.shape[1]))
        return super().forward(largest, None)


class PublishedTokens(Encoder):
    """The text tower: sentence max-pool, in which padding counts, then a gated unit.

    The published reader fills every caption up to one length, here the modality's, with zero
    vectors, each of which gives ``relu(bias)``. ReLU and bias come after the maximum, which is the
    same (both are monotone) and cheaper.
    """

    def __init__(self, modality: Modality, settings: SpaceSettings) -> None:
        super().__init__()
        self.pooled = settings.dim
        self.longest = modality.shape[0]
        self.words = nn.Linear(modality.features, settings.dim)
        self.unit = GatedUnit(settings.dim, settings.dim, norm=False)

    def forward(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, time, features) -> (n, D), (n, D)."""
        # One zero vector has the same effect as many.
        values = _blanked(values, lengths, steps=min(self.longest, values.shape[1] + 1))
        largest = linear(values, self.words.weight).max(1).values
        pooled = (largest + self.words.bias).relu()
        return pooled, self.unit(pooled)


class PublishedSpectrogram(Encoder):
    """The audio tower: DAVEnet, its mean over time, a gated unit, then a projection.

    The published reader fills every spectrogram up to one length, here the modality's, with zeros.
    In training the mean runs over all frames, in evaluation over the first ``length // ratio``, at
    least one.
    """

    def __init__(self, modality: Modality, settings: SpaceSettings) -> None:
        super().__init__()
        self.longest = modality.shape[0]
        self.net = Davenet(modality.features, width=settings.width, depth=settings.depth)
        self.pooled = self.net.channels
        self.unit = GatedUnit(self.pooled, self.pooled, norm=False)
        self.projection = nn.Linear(self.pooled, settings.dim)

    def forward(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, time, mels) -> (n, channels), (n, D)."""
        values = _blanked(values, lengths, steps=self.longest)
        hidden = self.net(values)
        if self.training:
            pooled = hidden.mean(1)
        else:
            ratio = round(values.shape[1] / hidden.shape[1])
            frames = torch.div(_all(values, lengths), ratio, rounding_mode="floor")
            pooled = masked_mean(hidden, valid_steps(frames.clamp(min=1), hidden.shape[1]))
        return pooled, self.projection(self.unit(pooled))


def _all(values: Tensor, lengths: Tensor | None) -> Tensor:
    """(n,) lengths; all time steps, if there are none."""
    if lengths is not None:
        return lengths
    return torch.full((values.shape[0],), values.shape[1], device=values.device)


def _blanked(values: Tensor, lengths: Tensor | None, *, steps: int) -> Tensor:
    """(n, time, ...) -> (n, max(time, steps), features) with zeros behind each length."""
    frames = values.flatten(2)
    if lengths is not None:
        valid = valid_steps(lengths, frames.shape[1])
        frames = frames.masked_fill(~valid[:, :, None], 0.0)
    return pad(frames, (0, 0, 0, max(steps - frames.shape[1], 0)))
