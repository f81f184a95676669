"""Frames and text through the two towers of a CLIP of open_clip's, into one space.

Open_clip has no CLAP, for audio; see :mod:`~continual_mm.preparation.extraction.clap_towers`.
"""

from functools import cache, partial
from typing import Any, Literal

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from torchvision.transforms import CenterCrop, Compose, ConvertImageDtype, Normalize

from continual_mm.definitions.modality import Kind
from continual_mm.preparation.extraction import networks
from continual_mm.preparation.extraction.towers import Features, FrameSampling
from continual_mm.system.errors import InputError

_NETWORK, _WEIGHTS = "ViT-B-32", "laion2b_s34b_b79k"


class ImageTower:
    """Each frame as a vector of length 1 in the space that it shares with text."""

    signal: Literal["frames"] = "frames"
    kind = Kind.FRAMES
    block = networks.BLOCK

    def __init__(
        self,
        *,
        network: str = _NETWORK,
        weights: str = _WEIGHTS,
        rate: float = 1.0,
        count: int | None = None,
        device: str = "cpu",
    ) -> None:
        loaded = _load(network, weights, device)
        self._model, self._device = loaded.network, device
        self.sampling, self._prepare = _preprocessing(network, self._model, rate, count)
        self.features = int(self._model.text_projection.shape[-1])
        self.description = loaded.description
        self.settings = {**loaded.settings, **self.sampling.settings}

    def encode(self, frames: NDArray[np.uint8]) -> Features:
        """(n, height, width, 3) -> (n, features)."""
        network = self._model.encode_image
        return networks.run_on_images(
            network, self._prepare, frames, self._device, unit_length=True
        )


class SentenceTower:
    """A text as one vector, of length 1 in the space that it shares with frames."""

    signal: Literal["text"] = "text"
    kind = Kind.VECTOR

    def __init__(
        self, *, network: str = _NETWORK, weights: str = _WEIGHTS, device: str = "cpu"
    ) -> None:
        loaded = _load(network, weights, device)
        self._model, self._device = loaded.network, device
        self.features = int(self._model.text_projection.shape[-1])
        self.description, self.settings = loaded.description, loaded.settings
        try:
            with networks.quiet():
                self._tokenizer = open_clip.get_tokenizer(network)
        except (OSError, RuntimeError, ImportError) as error:
            raise networks.download_failed(f"the tokenizer of {network}", error) from error

    def encode(self, text: str) -> Features | None:
        """(features,); of a text that is too long, its beginning."""
        tokens = self._tokenizer([text]).to(self._device)
        return networks.run(lambda: self._model.encode_text(tokens), unit_length=True).reshape(-1)


@cache
def _load(name: str, weights: str, device: str) -> networks.Loaded:
    """A model; a process that uses both of its towers loads it once."""
    known = open_clip.list_models()
    if name not in known:
        raise networks.unknown_network("open_clip", name, known)
    create = partial(open_clip.create_model, pretrained=None, pretrained_text=False)
    return networks.load(name, weights, device, create=create, download=_download)


def _download(name: str, tag: str) -> Any:
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        raise networks.unknown_weights(name, tag, tags)
    # OpenAI's were trained with another activation than open_clip's networks have by themselves.
    quick = bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False))
    try:
        return open_clip.create_model(name, pretrained=tag, force_quick_gelu=quick)
    except (OSError, RuntimeError, ImportError) as error:
        raise networks.download_failed(f"weights {tag} of {name}", error) from error


def _preprocessing(
    name: str, model: Any, rate: float, count: int | None
) -> tuple[FrameSampling, Compose]:
    """Which frames a model needs in which size, and what is done with them then."""
    config = open_clip.get_model_preprocess_cfg(model)
    size = config["size"]
    height, width = (size, size) if isinstance(size, int) else size
    sides = {"squash": (height, width), "shortest": min(height, width)}
    side = sides.get(config["resize_mode"])
    if side is None:
        problem = f"resizes images by {config['resize_mode']!r}"
        raise InputError.at(f"network {name!r}", problem, "choose another network")
    bicubic = config["interpolation"] == "bicubic"
    sampling = FrameSampling(rate, count, side, "bicubic" if bicubic else "bilinear")
    to_floats = [ConvertImageDtype(torch.float32), Normalize(config["mean"], config["std"])]
    return sampling, Compose([CenterCrop((height, width)), *to_floats])
