"""One encoder per kind of signal, each invariant to the scale and the padding of its input."""

from collections.abc import Callable
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from continual_mm.definitions.modality import Kind, Modality
from continual_mm.definitions.scenario import SpaceSettings
from continual_mm.system.seeds import seed_for


class FeatureDropout:
    """Hides features of an item at all its time steps, and scales up those that remain.

    As SpecAugment's frequency masks do (Park et al. 2019). On a few thousand items this decides
    between learning and memorising: the shipped ``joint_avt`` (seeds 0 and 1) reaches 26 / 31 / 58
    % R@1 on audio-text, audio-video and text-video with a rate of 0, and 42 / 58 / 74 % with 0.2.
    ``rate`` is the probability, in [0, 0.9]. The mask is a function of seed, step and modality, so
    that no other generator is advanced and a run that is resumed needs no state.
    """

    def __init__(self, rate: float, *, seed: int) -> None:
        self.rate = rate
        self._seed = seed
        self._step: tuple[int, int] = (0, 0)
        self._generators: dict[torch.device, torch.Generator] = {}

    def set_step(self, stage: int, step: int) -> None:
        """Choose the masks of a step; the same step hides the same features."""
        self._step = (stage, step)

    def __call__(self, name: str, values: Tensor, *, time: bool) -> Tensor:
        """(n, ...) -> same; one mask per item, shared by its time steps if it has ``time``."""
        if not self.rate:
            return values
        generator = self.generator(values.device, "dropout", name)
        shape = (values.shape[0], 1, *values.shape[2:]) if time else values.shape
        kept = torch.rand(shape, generator=generator, device=values.device) >= self.rate
        return values * (kept / (1 - self.rate)).to(values.dtype)

    def generator(self, device: torch.device, purpose: str, name: str) -> torch.Generator:
        """Of what is drawn for a modality at this step, seeded anew at each call."""
        generator = self._generators.setdefault(device, torch.Generator(device))
        return generator.manual_seed(seed_for(self._seed, purpose, *self._step, name))


class GatedUnit(nn.Module):
    """Gated embedding unit: ``h = norm(W1 x + b1); y = h * sigmoid(W2 h + b2)``.

    The published unit (Miech et al. 2018, without its final normalisation, as in MCN) has no norm.
    With one, the layer norm of h, the gate cannot saturate however large the input is.
    """

    def __init__(self, inputs: int, outputs: int, *, norm: bool = True) -> None:
        super().__init__()
        self.fc = nn.Linear(inputs, outputs)
        self.norm: nn.Module = nn.LayerNorm(outputs) if norm else nn.Identity()
        self.gate = nn.Linear(outputs, outputs)

    def forward(self, values: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        hidden = self.norm(self.fc(values))
        return torch.mul(hidden, self.gate(hidden).sigmoid())


def valid_steps(lengths: Tensor, time: int) -> Tensor:
    """(n, time) mask of the steps before each length."""
    return torch.arange(time, device=lengths.device) < lengths[:, None]


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean over the valid steps: (n, time, c), (n, time) -> (n, c); zeros where none is valid."""
    weight = valid.to(values.dtype)[:, :, None]
    return (values * weight).sum(1) / weight.sum(1).clamp(min=1.0)


def masked_max(values: Tensor, valid: Tensor) -> Tensor:
    """Maximum over the valid steps, zeros without any: (n, time, c), (n, time) -> (n, c).

    The gradient of ``amax`` costs twice as much as that of ``max``.
    """
    lowest = torch.finfo(values.dtype).min
    largest = values.masked_fill(~valid[:, :, None], lowest).max(1).values
    return torch.where(valid.any(1)[:, None], largest, torch.zeros_like(largest))


def first_for_padding(values: Tensor, valid: Tensor) -> Tensor:
    """Replace the padding of a row by its first step, which changes no maximum over its steps.

    Cheaper than masking what a wide layer makes of the steps: (n, time, c), (n, time) -> same.
    """
    return torch.where(valid[:, :, None], values, values[:, :1])


class ResidualBlock(nn.Module):
    """Two convolutions over time beside a shortcut: (n, c_in, time) -> (n, c_out, time / stride).

    The second convolution starts at zero, so a block starts as its shortcut and a stack of them
    needs no normalisation: there are no batch statistics to forget or for padding to change.
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

    The first layer spans the whole feature axis, as DAVEnet's convolution over all mels does, and
    is normalised, hence invariant to the input's scale; each stage after the first doubles the
    ``width`` channels, and shortens the time by the stride. The kernel is odd.
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


class Encoder(nn.Module):
    """Features of one modality -> (what the reconstruction aims at, the raw embedding)."""

    pooled: int
    """Size of the first of the two."""

    def forward(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, ...) values and, for kinds with time, (n,) lengths -> (n, pooled), (n, D)."""
        raise NotImplementedError


class VectorEncoder(Encoder):
    """A gated unit on a feature vector, as MCN, without the norm, encodes pooled video features."""

    def __init__(self, modality: Modality, settings: SpaceSettings, *, norm: bool = True) -> None:
        super().__init__()
        self.pooled = modality.features
        self.unit = GatedUnit(modality.features, settings.dim, norm=norm)

    def forward(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, features) -> (n, features), (n, D)."""
        return values, self.unit(values)


class TokenEncoder(Encoder):
    """Sentence max-pool, then a gated unit: MCN's text tower, padding masked.

    ReLU and bias come after the maximum, which is the same (both are monotone) and cheaper.
    """

    def __init__(self, modality: Modality, settings: SpaceSettings) -> None:
        super().__init__()
        self.pooled = settings.dim
        self.words = nn.Linear(modality.features, settings.dim, bias=False)
        self.bias = nn.Parameter(torch.zeros(settings.dim))
        self.norm = nn.LayerNorm(settings.dim)
        self.unit = GatedUnit(settings.dim, settings.dim)

    def forward(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, time, ...) -> (n, D), (n, D)."""
        values = values.flatten(2)
        if lengths is not None:
            values = first_for_padding(values, valid_steps(lengths, values.shape[1]))
        largest = self.words(values).max(1).values
        pooled = self.norm((largest + self.bias).relu())
        return pooled, self.unit(pooled)


class FlatEncoder(Encoder):
    """A linear layer over all time steps at once, then a gated unit.

    For clips of one length whose time steps correspond: it keeps their order. Padding counts as 0.
    """

    def __init__(self, modality: Modality, settings: SpaceSettings) -> None:
        super().__init__()
        self.pooled = settings.dim
        self.time = modality.shape[0]
        self.moments = nn.Linear(prod(modality.shape), settings.dim)
        self.norm = nn.LayerNorm(settings.dim)
        self.unit = GatedUnit(settings.dim, settings.dim)

    def forward(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, time, ...) -> (n, D), (n, D); a ValueError where steps outnumber the weights."""
        values = values.flatten(2)
        if lengths is not None:
            values = values * valid_steps(lengths, values.shape[1])[:, :, None]
        missing = self.time - values.shape[1]
        if missing < 0:
            raise ValueError(f"{values.shape[1]} time steps, but the tower 'flat' has {self.time}")
        values = pad(values, (0, 0, 0, missing)) if missing else values
        pooled = self.norm(self.moments(values.flatten(1))).relu()
        return pooled, self.unit(pooled)


class TemporalEncoder(Encoder):
    """A temporal trunk, its masked mean and maximum over time, then a gated unit."""

    def __init__(self, trunk: TemporalTrunk, settings: SpaceSettings) -> None:
        super().__init__()
        self.trunk = trunk
        self.pooled = 2 * trunk.channels
        self.norm = nn.LayerNorm(self.pooled)
        self.unit = GatedUnit(self.pooled, settings.dim)

    def forward(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, time, ...) -> (n, pooled), (n, D)."""
        if lengths is None:
            lengths = torch.full((values.shape[0],), values.shape[1], device=values.device)
        hidden, valid = self.trunk(values.flatten(2), lengths)
        both = (masked_mean(hidden, valid), masked_max(hidden, valid))
        pooled = self.norm(torch.cat(both, dim=1))
        return pooled, self.unit(pooled)


def spectrogram_encoder(modality: Modality, settings: SpaceSettings) -> Encoder:
    """DAVEnet of any width and depth: long kernels, each stage halves the time."""
    trunk = TemporalTrunk(
        modality.features, width=settings.width, depth=settings.depth, kernel=9, stride=2
    )
    return TemporalEncoder(trunk, settings)


def frame_encoder(modality: Modality, settings: SpaceSettings) -> Encoder:
    """Short kernels over frame features in order; no time step is skipped."""
    trunk = TemporalTrunk(
        modality.features, width=2 * settings.width, depth=settings.depth, kernel=3, stride=1
    )
    return TemporalEncoder(trunk, settings)


ENCODERS: dict[Kind, Callable[[Modality, SpaceSettings], Encoder]] = {
    Kind.VECTOR: VectorEncoder,
    Kind.TOKENS: TokenEncoder,
    Kind.SPECTROGRAM: spectrogram_encoder,
    Kind.FRAMES: frame_encoder,
}
