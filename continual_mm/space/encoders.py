"""One encoder per kind of signal, each indifferent to the scale and the padding of its input."""

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from continual_mm.definitions import SpaceSettings
from continual_mm.modality import Kind, Modality
from continual_mm.space.temporal import TemporalTrunk
from continual_mm.space.units import (
    GatedUnit,
    first_for_padding,
    masked_max,
    masked_mean,
    valid_steps,
)


class Encoder(nn.Module):
    """Features of one modality -> (what the reconstruction aims at, the raw embedding).

    Attributes:
        pooled: Size of the first of the two.
    """

    pooled: int

    def forward(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, ...) values and, for kinds with time, (n,) lengths -> (n, pooled), (n, D)."""
        raise NotImplementedError


class VectorEncoder(Encoder):
    """A gated unit on a feature vector, as MCN encodes pooled video features.

    Args:
        modality: What is encoded.
        settings: Sizes.
        norm: Whether the unit is normalised; MCN's is not.
    """

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
    """A layer in which every moment has weights of its own, then a gated unit.

    For clips of one length whose moments correspond, such as sentences of one pattern: what
    happens when is kept, which pooling over time forgets. Padding counts as zero.
    """

    def __init__(self, modality: Modality, settings: SpaceSettings) -> None:
        super().__init__()
        self.pooled = settings.dim
        self.time = modality.shape[0]
        self.moments = nn.Linear(prod(modality.shape), settings.dim)
        self.norm = nn.LayerNorm(settings.dim)
        self.unit = GatedUnit(settings.dim, settings.dim)

    def forward(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, time, ...) -> (n, D), (n, D).

        Raises:
            ValueError: If there are more moments than the tower has weights for.
        """
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
