"""The published towers of MCN (ICCV 2021), with what they do to padding and to scale."""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from continual_mm.definitions import SpaceSettings
from continual_mm.modality import Modality
from continual_mm.space.davenet import Davenet
from continual_mm.space.encoders import Encoder, VectorEncoder
from continual_mm.space.units import GatedUnit, masked_max, masked_mean, valid_steps


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

    The published reader fills every caption up to one length with zero vectors, and such a vector
    gives ``relu(bias)``. Here that length is the modality's; captions of that length have none.
    ReLU and bias come after the maximum, which is the same (both are monotone) and cheaper.
    """

    def __init__(self, modality: Modality, settings: SpaceSettings) -> None:
        super().__init__()
        self.pooled = settings.dim
        self.longest = modality.shape[0]
        self.words = nn.Linear(modality.features, settings.dim)
        self.unit = GatedUnit(settings.dim, settings.dim, norm=False)

    def forward(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, time, features) -> (n, D), (n, D)."""
        # One zero vector does what many do.
        values = _blanked(values, lengths, steps=min(self.longest, values.shape[1] + 1))
        largest = linear(values, self.words.weight).max(1).values
        pooled = (largest + self.words.bias).relu()
        return pooled, self.unit(pooled)


class PublishedSpectrogram(Encoder):
    """The audio tower: DAVEnet, its mean over time, a gated unit, then a projection.

    The published reader fills every spectrogram up to one length with zeros; here that length is
    the modality's. In training the mean runs over all frames, those of padding included, in
    evaluation over the first ``length // ratio``, at least one.
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
