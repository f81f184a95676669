"""A tower for pictures, such as depth maps: each through convolutions, then the mean of views."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from continual_mm.definitions.modality import Kind, Modality
from continual_mm.definitions.scenario import SpaceSettings
from continual_mm.space.encoders import Encoder, GatedUnit, masked_mean, valid_steps

_CELLS = 3  # on each side of what the convolutions see, whatever the size of a picture


def is_pictures(modality: Modality) -> bool:
    """Whether an item is (views, height, width) or (views, height, width, channels)."""
    return modality.kind is Kind.FRAMES and len(modality.shape) in (3, 4)


class PictureEncoder(Encoder):
    """Three convolutions that halve the picture, a gated unit, the mean of the views' directions.

    Similarity to a text is then the sum over views of their cosines, up to a factor that is the
    same for all texts; of one view the raw embedding is what the unit gives. No layer has
    statistics of a batch. ``width`` channels become four times as many.
    """

    def __init__(self, modality: Modality, settings: SpaceSettings) -> None:
        super().__init__()
        if not is_pictures(modality):
            given = "x".join(map(str, modality.shape))
            raise ValueError(
                f"the tower 'pictures' takes (views, height, width) or (views, height, width, "
                f"channels); {modality.name!r} is {given}"
            )
        channels = modality.shape[3] if len(modality.shape) == 4 else 1
        width = settings.width
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(_CELLS),
            nn.Flatten(),
        )
        self.pooled = 4 * width * _CELLS**2
        self.norm = nn.LayerNorm(self.pooled)
        self.unit = GatedUnit(self.pooled, settings.dim)

    def forward(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, views, height, width) or (..., channels) -> (n, pooled), (n, D)."""
        views = values.shape[1]
        pictures = values[..., None] if values.dim() == 4 else values
        pictures = pictures.movedim(-1, 2).flatten(0, 1)
        hidden = self.norm(self.layers(pictures))
        raw = self.unit(hidden).unflatten(0, (-1, views))
        if lengths is None:
            lengths = torch.full((len(values),), views, device=values.device)
        valid = valid_steps(lengths, views)
        size = masked_mean(raw.norm(dim=2, keepdim=True), valid)
        direction = masked_mean(normalize(raw, dim=2), valid)
        return masked_mean(hidden.unflatten(0, (-1, views)), valid), size * direction


def rescaled(pictures: Tensor, factors: Tensor) -> Tensor:
    """(n, views, height, width) pictures, each item's made smaller or larger about the middle.

    What was outside continues the border. Without perspective it is what a camera at another
    distance sees of a depth map that is normalised by its range.

    Args:
        pictures: Values of each pixel; one of these is taken, none is mixed with its neighbour.
        factors: (n,) above 0; at 2 everything is half as large.
    """
    *_, height, width = pictures.shape
    rows, columns = (
        (torch.arange(side, device=pictures.device) - (side - 1) / 2) for side in (height, width)
    )

    def source(places: Tensor, side: int) -> Tensor:
        found = places * factors[:, None] + (side - 1) / 2
        return found.round().long().clamp(0, side - 1)

    down, along = source(rows, height), source(columns, width)
    item = torch.arange(len(pictures), device=pictures.device)
    taken = pictures[item[:, None, None], :, down[:, :, None], along[:, None, :]]
    return taken.movedim(-1, 1)
