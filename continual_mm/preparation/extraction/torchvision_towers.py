"""Frames and windows of them through classifiers of torchvision, without their last layer."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision import models
from torchvision.models import video
from torchvision.transforms import InterpolationMode

from continual_mm.definitions.modality import Kind
from continual_mm.preparation.extraction import networks
from continual_mm.preparation.extraction.towers import (
    MOST_FRAMES,
    RANDOM,
    Features,
    FrameSampling,
    Setting,
    check_count,
)

_WINDOWS = 4  # windows of motion that go through a network at once
_LAST = (nn.Linear, nn.Conv2d, nn.Conv3d)
"""Types of the layer with the scores of classes, which is always the last one."""


class FrameTower:
    """Each frame in a ``torchvision.models`` classifier, ``side`` pixels or its weights' square."""

    signal: Literal["frames"] = "frames"
    kind = Kind.FRAMES
    block = networks.BLOCK

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
        loaded, transforms = load_network(models, network, weights, device)
        self._network, self._device = loaded.network, device
        sizes = {} if side is None else {"crop_size": side, "resize_size": side}
        self._transforms = transforms(**sizes)
        self.sampling = _sampling(self._transforms, rate, count)
        self.features = int(loaded.network.features)
        self.description = loaded.description
        self.settings = {**loaded.settings, **self.sampling.settings, "side": side}

    def encode(self, frames: NDArray[np.uint8]) -> Features:
        """(n, height, width, 3) -> (n, features)."""
        return networks.run_on_images(self._network, self._transforms, frames, self._device)


class MotionTower:
    """Windows of frames, the last filled up, as a ``torchvision.models.video`` classifier has them.

    MCN's rate of 24 frames per second gives 1.5 features per second; ``side`` is as of frames.
    """

    signal: Literal["frames"] = "frames"
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
        loaded, transforms = load_network(video, network, weights, device)
        self._network, self._device = loaded.network, device
        check_count("window", window, most=MOST_FRAMES)
        self._window, self.block = window, _WINDOWS * window
        sizes = {} if side is None else {"crop_size": (side, side), "resize_size": (side,)}
        self._transforms = transforms(**sizes)
        self.sampling = _sampling(self._transforms, rate)
        self.features = int(loaded.network.features)
        self.description = loaded.description
        given: dict[str, Setting] = {"window": window, "side": side}
        self.settings = {**loaded.settings, **self.sampling.settings, **given}

    def encode(self, frames: NDArray[np.uint8]) -> Features:
        """(n, height, width, 3) -> (windows, features)."""
        missing = -len(frames) % self._window
        filled = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
        windows = filled.reshape(-1, self._window, *filled.shape[1:])
        return networks.run_on_images(self._network, self._transforms, windows, self._device)


def load_network(
    family: ModuleType, name: str, weights: str, device: str
) -> tuple[networks.Loaded, Callable[..., Any]]:
    """A network of torchvision's without its last layer, and the preprocessing of its weights.

    They are named as torchvision does (``IMAGENET1K_V2``, ``DEFAULT``), which downloads them once,
    or are the path of a file, or ``random``; both get the preprocessing of the default ones.
    """
    known = models.list_models(module=family)
    if name not in known:
        raise networks.unknown_network("torchvision", name, known)
    known_weights = models.get_model_weights(name)
    usual = known_weights.DEFAULT
    if not networks.is_file(weights) and weights != RANDOM:
        if weights not in known_weights.__members__:
            raise networks.unknown_weights(name, weights, [*known_weights.__members__])
        usual = known_weights[weights]
        weights = usual.name  # the default may be another one in another version
    loaded = networks.load(name, weights, device, create=_create, download=_download)
    return loaded, usual.transforms


class _Headless(nn.Module):
    """A network without its last layer (``head``), which turns features into scores of classes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        layers = [(name, part) for name, part in network.named_modules() if isinstance(part, _LAST)]
        self.head, last = layers[-1]
        self.features = last.in_features if isinstance(last, nn.Linear) else last.in_channels
        parent, _, child = self.head.rpartition(".")
        setattr(network.get_submodule(parent), child, nn.Identity())
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Images or windows -> (n, features)."""
        features: Tensor = self.network(images)
        return features

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load the weights of a whole network, whose last layer may have any size."""
        weights = {k: v for k, v in state_dict.items() if not k.startswith(f"{self.head}.")}
        return self.network.load_state_dict(weights, strict, assign)


def _create(name: str) -> nn.Module:
    network: Any = models.get_model(name, weights=None, progress=False)
    if hasattr(network, "transform_input"):
        network.transform_input = True  # as with weights of torchvision's, whose colours differ
    return _Headless(network)


def _download(name: str, weights: str) -> nn.Module:
    try:
        return _Headless(models.get_model(name, weights=weights, progress=False))
    except (OSError, RuntimeError) as error:  # RuntimeError: a file with a wrong checksum
        raise networks.download_failed(f"weights {weights} of {name}", error) from error


def _sampling(
    transforms: Callable[[Tensor], Tensor], rate: float, count: int | None = None
) -> FrameSampling:
    """Frames as some preprocessing resizes them, so that no larger ones are ever kept."""
    preset: Any = transforms
    sizes = tuple(preset.resize_size)
    bicubic = preset.interpolation == InterpolationMode.BICUBIC
    return FrameSampling(
        rate,
        count,
        sizes[0] if len(sizes) == 1 else (sizes[0], sizes[1]),
        "bicubic" if bicubic else "bilinear",
        # An option, on by default, of presets for images; those for videos never do it.
        antialias=getattr(preset, "antialias", False),
    )
