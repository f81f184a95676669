"""Everything in which the robust and the published space differ, in one place."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import nn

from continual_mm.definitions.modality import Kind, Modality
from continual_mm.definitions.scenario import SpaceSettings
from continual_mm.space.encoders import ENCODERS, Encoder, VectorEncoder
from continual_mm.space.mcn import PublishedFrames, PublishedSpectrogram, PublishedTokens


@dataclass(frozen=True, slots=True)
class Form:
    """One way to build and to compare.

    Attributes:
        encoders: Kind of signal -> what builds its encoder.
        head: (D, hidden units, pooled size) -> reconstruction head.
        normalised: Whether similarities are taken of unit vectors, multiplied by a learned scale;
            otherwise of raw embeddings, as they are.
    """

    encoders: Mapping[Kind, Callable[[Modality, SpaceSettings], Encoder]]
    head: Callable[[int, int, int], nn.Module]
    normalised: bool


def robust_head(dim: int, hidden: int, pooled: int) -> nn.Sequential:
    """The reconstruction head, whose output may have any sign."""
    return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, pooled))


def published_head(dim: int, hidden: int, pooled: int) -> nn.Sequential:
    """The same, but unable to give a negative value."""
    return robust_head(dim, hidden, pooled).append(nn.ReLU())


FORMS: Mapping[str, Form] = {
    "robust": Form(ENCODERS, robust_head, normalised=True),
    "reference": Form(
        {
            Kind.VECTOR: partial(VectorEncoder, norm=False),
            Kind.TOKENS: PublishedTokens,
            Kind.SPECTROGRAM: PublishedSpectrogram,
            Kind.FRAMES: PublishedFrames,
        },
        published_head,
        normalised=False,
    ),
}
