"""Pictures and text through the two towers of a CLIP of open_clip's, into one space.

Open_clip has no CLAP, for sound; see :mod:`~continual_mm.preparation.extraction.clap_towers`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize
from torchvision.transforms import CenterCrop, Compose, ConvertImageDtype, Normalize

from continual_mm.definitions.modality import Kind
from continual_mm.preparation.extraction.media import Pictures, Smooth
from continual_mm.preparation.extraction.networks import (
    PICTURES,
    Maker,
    describing,
    filled,
    no_weights,
    not_to_be_had,
    quiet,
    still,
    unknown,
    weights_in,
)
from continual_mm.preparation.extraction.towers import Features, Setting
from continual_mm.system.errors import InputError, Problem


@dataclass(frozen=True, slots=True)
class _Clip:
    """Both towers of a model, and what they are."""

    model: Any
    told: str
    settings: Mapping[str, Setting]


class ImageTower:
    """Each picture by itself, of length 1 in the space that it shares with text.

    Args:
        network: As open_clip calls it.
        weights: A tag of open_clip's, which downloads them once; the path of a file; ``random``.
        rate: Pictures per second.
        count: Pictures per clip instead.
        device: Where it runs.
    """

    signal: Literal["pictures"] = "pictures"
    kind = Kind.FRAMES
    block = PICTURES

    def __init__(
        self,
        *,
        network: str = "ViT-B-32",
        weights: str = "laion2b_s34b_b79k",
        rate: float = 1.0,
        count: int | None = None,
        device: str = "cpu",
    ) -> None:
        loaded = _loaded(network, weights, device)
        self._model = loaded.model
        self._device = device
        self._prepare, side, smooth = _preprocessing(network, self._model)
        self.wanted = Pictures(rate, count, side, smooth)
        self.told = loaded.told
        self.settings = {**loaded.settings, **self.wanted.when}
        self.features = _features(self._model)

    def describe(self, pictures: NDArray[np.uint8]) -> Features:
        """(n, height, width, 3) -> (n, features)."""
        batch = torch.from_numpy(pictures).permute(0, 3, 1, 2).to(self._device)
        with describing():
            return _unit(self._model.encode_image(self._prepare(batch)))


class SentenceTower:
    """A text as one vector, of length 1 in the space that it shares with pictures.

    Args:
        network: As open_clip calls it.
        weights: See :class:`ImageTower`.
        device: Where it runs.
    """

    signal: Literal["text"] = "text"
    kind = Kind.VECTOR

    def __init__(
        self,
        *,
        network: str = "ViT-B-32",
        weights: str = "laion2b_s34b_b79k",
        device: str = "cpu",
    ) -> None:
        loaded = _loaded(network, weights, device)
        self._model = loaded.model
        self._device = device
        self.told = loaded.told
        self.settings = loaded.settings
        self.features = _features(self._model)
        try:
            with quiet():
                self._tokens = open_clip.get_tokenizer(network)
        except (OSError, RuntimeError, ImportError) as error:
            raise not_to_be_had(f"the tokenizer of {network}", error) from error

    def describe(self, text: str) -> Features | None:
        """(features,); cut behind what the network can read at once."""
        tokens = self._tokens([text]).to(self._device)
        with describing():
            return _unit(self._model.encode_text(tokens)).reshape(-1)


@cache
def _loaded(name: str, weights: str, device: str) -> _Clip:
    """A model; where one process wants both of its towers, it is there once."""
    known = open_clip.list_models()
    if name not in known:
        raise unknown("open_clip", name, known)
    model, told, settings = _OPEN_CLIP.make(name, weights)
    return _Clip(still(model, device), told, settings)


def _bare(name: str) -> Any:
    return open_clip.create_model(name, pretrained=None, pretrained_text=False)


def _fill(model: Any, path: Path) -> None:
    filled(model, weights_in(path), path)


def _fetch(name: str, tag: str) -> Any:
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        raise no_weights(name, tag, tags)
    # OpenAI's were trained with another activation than open_clip's networks have by themselves.
    quick = bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False))
    try:
        return open_clip.create_model(name, pretrained=tag, force_quick_gelu=quick)
    except (OSError, RuntimeError, ImportError) as error:
        raise not_to_be_had(f"weights {tag} of {name}", error) from error


_OPEN_CLIP = Maker(_bare, _fill, _fetch)


def _preprocessing(name: str, model: Any) -> tuple[Compose, int | tuple[int, int], Smooth]:
    """What is left to do with decoded pictures; the size that they are wanted in, and how."""
    wanted = open_clip.get_model_preprocess_cfg(model)
    size = wanted["size"]
    height, width = (size, size) if isinstance(size, int) else size
    sizes = {"squash": (height, width), "shortest": min(height, width)}
    if wanted["resize_mode"] not in sizes:
        problem = f"wants pictures resized by {wanted['resize_mode']!r}"
        raise InputError(Problem(f"network {name!r}", problem, "choose another network"))
    to_floats = [ConvertImageDtype(torch.float32), Normalize(wanted["mean"], wanted["std"])]
    smooth: Smooth = "bicubic" if wanted["interpolation"] == "bicubic" else "bilinear"
    cropped = CenterCrop((height, width))
    return Compose([cropped, *to_floats]), sizes[wanted["resize_mode"]], smooth


def _features(model: Any) -> int:
    return int(model.text_projection.shape[-1])


def _unit(values: torch.Tensor) -> Features:
    unit: Features = normalize(values.float(), dim=-1).cpu().numpy()
    return unit
