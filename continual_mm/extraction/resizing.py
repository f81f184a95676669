"""Pictures resized by torchvision, bit for bit as the preprocessing of its networks does it."""

import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize

from continual_mm.extraction.pictures import Picture, Pictures


def resized(picture: Picture, wanted: Pictures) -> Picture:
    """A picture in the size that is wanted of it; as it is, if that is its size already."""
    size = wanted.size(*picture.shape[:2])
    pixels = torch.from_numpy(picture).permute(2, 0, 1)
    way = InterpolationMode(wanted.smooth)
    made = resize(pixels, [*size], way, antialias=wanted.antialias)
    values: Picture = made.permute(1, 2, 0).numpy()
    return values
