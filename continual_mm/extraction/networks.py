"""Networks of torchvision as feature extractors: found by name, weighted, their last layer off."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from continual_mm.complaint import Complaint, RefusedError, suggestion
from continual_mm.data.weights import read_weights
from continual_mm.dice import seed_for
from continual_mm.extraction.tower import RANDOM, Setting
from continual_mm.runs.files import checksum

_LAST = (nn.Linear, nn.Conv2d, nn.Conv3d)
"""What torchvision's networks tell classes apart with; it is always their last module."""


@dataclass(frozen=True, slots=True)
class Network:
    """A network that gives what its last layer would have been given.

    Attributes:
        module: In evaluation mode; nothing in it is trained.
        features: Values that it gives.
        transforms: Makes the preprocessing of its weights; takes ``crop_size`` and ``resize_size``.
        told: Its name, and where the weights are from.
        settings: Its name, and what tells the weights from others.
    """

    module: nn.Module
    features: int
    transforms: "partial[Callable[[Tensor], Tensor]]"
    told: str
    settings: Mapping[str, Setting]


def load_network(family: ModuleType, name: str, weights: str, device: str) -> Network:
    """A network of torchvision.

    Args:
        family: ``torchvision.models`` for pictures, ``torchvision.models.video`` for film.
        name: Such as ``resnet152``.
        weights: As torchvision calls them (``IMAGENET1K_V2``, ``DEFAULT``), which downloads them
            once; the path of a file; or ``random``. Preprocessing is that of the weights, or of
            the network's default ones.
        device: Where to.

    Raises:
        RefusedError: If there is no such network, or its weights cannot be had.
    """
    known = models.list_models(module=family)
    if name not in known:
        remedy = f"{suggestion(name, known)}torchvision has {', '.join(known)}"
        raise RefusedError(Complaint(f"network {name!r}", "torchvision has none", remedy))
    if is_file(weights):
        module, told = _bare(name), f"{name}, weights from {Path(weights).name}"
        features = _behead(module, read_weights(Path(weights)), weights)
        settings = {"network": name, "weights": checksum(Path(weights))}
        usual = _default(name)
    elif weights == RANDOM:
        module, told, usual = _bare(name), f"{name}, random weights", _default(name)
        features, settings = _behead(module), {"network": name, "weights": RANDOM}
    else:
        usual = _weights(name, weights)
        module = _downloaded(name, usual)
        features, told = _behead(module), f"{name}, {usual.name}"
        settings = {"network": name, "weights": usual.name}
    module = module.eval().requires_grad_(False).to(device)
    return Network(module, features, usual.transforms, told, settings)


def is_file(weights: str) -> bool:
    """Whether a user means a file with weights and no name that a library knows.

    >>> is_file("weights/mine.safetensors"), is_file("IMAGENET1K_V2")
    (True, False)
    """
    return "/" in weights or bool(Path(weights).suffix)


def not_to_be_had(what: str, error: Exception) -> RefusedError:
    """The refusal where a download failed."""
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    remedy = "download them where there is a network and give the file, or try weights 'random'"
    return RefusedError(Complaint(what, f"cannot be downloaded: {reason}", remedy))


def _default(name: str) -> Any:
    return models.get_model_weights(name).DEFAULT


def _weights(name: str, weights: str) -> Any:
    known = models.get_model_weights(name)
    names = [*known.__members__]
    if weights not in names:
        remedy = f"{suggestion(weights, names)}there are {', '.join(names)}, a file, or {RANDOM}"
        raise RefusedError(Complaint(f"network {name!r}", f"no weights {weights!r}", remedy))
    return known[weights]


def _downloaded(name: str, weights: Any) -> nn.Module:
    try:
        module: nn.Module = models.get_model(name, weights=weights, progress=False)
    except (OSError, RuntimeError) as error:  # RuntimeError: a file with a wrong checksum
        raise not_to_be_had(f"weights {weights.name} of {name}", error) from error
    return module


def _bare(name: str) -> nn.Module:
    """A network with random weights, the same in every process."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(0, "extraction", name))
        module: Any = models.get_model(name, weights=None, progress=False)
    if hasattr(module, "transform_input"):
        module.transform_input = True  # as with weights of torchvision's, whose colours differ
    bare: nn.Module = module
    return bare


def _behead(
    module: nn.Module, weights: Mapping[str, Tensor] | None = None, source: str = ""
) -> int:
    """Take off the last layer, after giving the rest weights if there are any.

    Returns:
        How many values that layer was given.
    """
    name, last = [(name, part) for name, part in module.named_modules() if isinstance(part, _LAST)][
        -1
    ]
    *way, child = name.split(".")
    setattr(module.get_submodule(".".join(way)), child, nn.Identity())
    if weights is not None:
        _load(module, {k: v for k, v in weights.items() if not k.startswith(f"{name}.")}, source)
    return last.in_features if isinstance(last, nn.Linear) else last.in_channels


def _load(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        problem = f"does not fit the network: {' '.join(lines[1:3])}"
        raise RefusedError(
            Complaint(source, problem, "name the network it was saved of")
        ) from error
