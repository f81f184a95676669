"""Pictures and motion through networks of torchvision: the 2D and the 3D half of video features."""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision import models
from torchvision.models import video
from torchvision.transforms import InterpolationMode

from continual_mm.definitions.modality import Kind
from continual_mm.preparation.extraction.media import Pictures
from continual_mm.preparation.extraction.networks import PICTURES, load_network
from continual_mm.preparation.extraction.towers import Features, Setting

_WINDOWS = 4
"""Windows of motion that go through a network at once."""


class FrameTower:
    """Each picture by itself, as a classifier of pictures sees it before it decides.

    Args:
        network: Of ``torchvision.models``.
        weights: See :func:`~continual_mm.preparation.extraction.networks.load_network`.
        rate: Pictures per second.
        count: Pictures per clip instead.
        side: Pixels of the square that the network sees; by default what its weights expect.
        device: Where it runs.
    """

    signal: Literal["pictures"] = "pictures"
    kind = Kind.FRAMES
    block = PICTURES

    def __init__(
        self,
        *,
        network: str = "resnet152",
        weights: str = "DEFAULT",
        rate: float = 1.0,
        count: int | None = None,
        side: int | None = None,
        device: str = "cpu",
    ) -> None:
        self._network = load_network(models, network, weights, device)
        self._device = device
        sizes = {} if side is None else {"crop_size": side, "resize_size": side}
        self._transforms = self._network.transforms(**sizes)
        self.wanted = _wanted(self._transforms, rate, count)
        self.features = self._network.features
        self.told = self._network.told
        self.settings = {**self._network.settings, **self.wanted.when, "side": side}

    def describe(self, pictures: NDArray[np.uint8]) -> Features:
        """(n, height, width, 3) -> (n, features)."""
        batch = torch.from_numpy(pictures).permute(0, 3, 1, 2).to(self._device)
        return self._network.describe(batch, self._transforms)


class MotionTower:
    """Some pictures in a row at a time, as a classifier of film sees them before it decides.

    Args:
        network: Of ``torchvision.models.video``.
        weights: See :func:`~continual_mm.preparation.extraction.networks.load_network`.
        rate: Pictures per second; MCN's 24 gives 1.5 features per second.
        window: Pictures in a row; a clip's last window is filled up with its last picture.
        side: Pixels of the square that the network sees; by default what its weights expect.
        device: Where it runs.
    """

    signal: Literal["pictures"] = "pictures"
    kind = Kind.FRAMES

    def __init__(
        self,
        *,
        network: str = "r3d_18",
        weights: str = "DEFAULT",
        rate: float = 24.0,
        window: int = 16,
        side: int | None = None,
        device: str = "cpu",
    ) -> None:
        self._network = load_network(video, network, weights, device)
        self._device = device
        if not isinstance(window, int) or window < 1:
            raise ValueError(f"window {window} is not at least 1 picture")
        self._window = window
        sizes = {} if side is None else {"crop_size": (side, side), "resize_size": (side,)}
        self._transforms = self._network.transforms(**sizes)
        self.wanted = _wanted(self._transforms, rate)
        self.block = _WINDOWS * window
        self.features = self._network.features
        self.told = self._network.told
        given: dict[str, Setting] = {"window": window, "side": side}
        self.settings = {**self._network.settings, **self.wanted.when, **given}

    def describe(self, pictures: NDArray[np.uint8]) -> Features:
        """(n, height, width, 3) -> (windows, features)."""
        missing = -len(pictures) % self._window
        filled = np.concatenate([pictures, np.repeat(pictures[-1:], missing, axis=0)])
        windows = filled.reshape(-1, self._window, *filled.shape[1:])
        batch = torch.from_numpy(windows).permute(0, 1, 4, 2, 3).to(self._device)
        return self._network.describe(batch, self._transforms)


def _wanted(transforms: Any, rate: float, count: int | None = None) -> Pictures:
    """Pictures as some preprocessing resizes them, so that no larger ones are ever kept.

    Of torchvision's presets those for pictures can be told whether to antialias, and do it by
    default; those for film never do.
    """
    sizes = tuple(transforms.resize_size)
    bicubic = transforms.interpolation == InterpolationMode.BICUBIC
    return Pictures(
        rate,
        count,
        sizes[0] if len(sizes) == 1 else (sizes[0], sizes[1]),
        "bicubic" if bicubic else "bilinear",
        antialias=getattr(transforms, "antialias", False),
    )
