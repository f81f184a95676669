"""Networks as extractors: with weights by name, from a file or drawn, and nothing trained."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torchvision import models

from continual_mm.data.weights import read_weights
from continual_mm.preparation.extraction.towers import RANDOM, Features, Setting
from continual_mm.system.errors import InputError, Problem, first_few, suggestion
from continual_mm.system.files import checksum
from continual_mm.system.seeds import seed_for

PICTURES = 16
"""Pictures that go through a network at once."""

_LAST = (nn.Linear, nn.Conv2d, nn.Conv3d)
"""What torchvision's networks tell classes apart with; it is always their last module."""

_PARALLEL = "module."
"""What torch's DataParallel and DistributedDataParallel put before the names of weights."""

_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class Maker(Generic[_Made]):
    """How a library's networks come by their weights.

    Attributes:
        bare: Name -> a network whose weights are drawn.
        fill: Gives a network the weights of a file.
        fetch: Name and name of weights -> a network with them; may download.
    """

    bare: Callable[[str], _Made]
    fill: Callable[[_Made, Path], None]
    fetch: Callable[[str, str], _Made]

    def make(self, name: str, weights: str) -> tuple[_Made, str, dict[str, Setting]]:
        """A network, what to call it, and what tells it from others.

        Args:
            name: As the library calls it.
            weights: The path of a file, ``random``, or a name that the library knows.

        Raises:
            InputError: If the weights cannot be had, or are those of another network.
        """
        with quiet():
            return self._make(name, weights)

    def _make(self, name: str, weights: str) -> tuple[_Made, str, dict[str, Setting]]:
        if is_file(weights):
            made = _drawn(self.bare, name)
            self.fill(made, Path(weights))
            told, mark = f"weights from {Path(weights).name}", checksum(Path(weights))
        elif weights == RANDOM:
            made, told, mark = _drawn(self.bare, name), "random weights", RANDOM
        else:
            made, told, mark = self.fetch(name, weights), weights, weights
        return made, f"{name}, {told}", {"network": name, "weights": mark}


def still(module: Any, device: str) -> Any:
    """A network that only describes: in evaluation mode, nothing in it trained."""
    return module.eval().requires_grad_(False).to(device)


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings of libraries: what users must know of weights is told with the features."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def describing() -> Iterator[None]:
    """No gradients, and one thread of torch: sums then have one order, whoever makes them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)


def is_file(weights: str) -> bool:
    """Whether a user means a file with weights and no name that a library knows.

    >>> is_file("weights/mine.safetensors"), is_file("IMAGENET1K_V2")
    (True, False)
    """
    return "/" in weights or bool(Path(weights).suffix)


def not_to_be_had(what: str, error: Exception) -> InputError:
    """The refusal where a download failed."""
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    remedy = "download them where there is a network and give the file, or try weights 'random'"
    return InputError(Problem(what, f"cannot be downloaded: {reason}", remedy))


def filled(module: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Give a network weights.

    Raises:
        InputError: If they are not its.
    """
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        lines = [_shortened(line.strip()) for line in str(error).splitlines()]
        problem = f"does not fit the network: {'; '.join(lines[1:3])}"
        remedy = "name the network it was saved of"
        raise InputError(Problem(str(path), problem, remedy)) from error


def weights_in(path: Path) -> dict[str, Tensor]:
    """The weights in a file; of a network that was trained in parallel, by their names inside it.

    Raises:
        InputError: If they cannot be read.
    """
    given = read_weights(path)
    if given and all(name.startswith(_PARALLEL) for name in given):
        return {name.removeprefix(_PARALLEL): value for name, value in given.items()}
    return given


def _shortened(line: str) -> str:
    """A line of torch's about names, of which there may be hundreds.

    >>> _shortened('Missing key(s) in state_dict: "a", "b", "c", "d", "e", "f", "g". ')
    'Missing key(s) in state_dict: "a", "b", "c", "d", "e" and 2 more'
    """
    what, colon, names = line.rstrip(" .").partition(": ")
    return f"{what}{colon}{first_few(names.split(', '))}" if "key(s)" in what else line


def unknown(library: str, name: str, known: list[str]) -> InputError:
    """The refusal of a network that a library does not have."""
    remedy = f"{suggestion(name, known)}{library} has {', '.join(known)}"
    return InputError(Problem(f"network {name!r}", f"{library} has none", remedy))


def no_weights(network: str, weights: str, known: list[str]) -> InputError:
    """The refusal of weights that a library does not have for a network."""
    remedy = f"{suggestion(weights, known)}there are {', '.join(known)}, a file, or {RANDOM}"
    return InputError(Problem(f"network {network!r}", f"no weights {weights!r}", remedy))


def _drawn(bare: Callable[[str], _Made], name: str) -> _Made:
    """A network with random weights, the same in every process."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(0, "extraction", name))
        return bare(name)


@dataclass(frozen=True, slots=True)
class Network:
    """A network of torchvision that gives what its last layer would have been given.

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

    def describe(self, pictures: Tensor, prepare: Callable[[Tensor], Tensor]) -> Features:
        """Pictures or windows, prepared -> (n, features)."""
        with describing():
            values: Features = self.module(prepare(pictures)).float().cpu().numpy()
        return values


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
        InputError: If there is no such network, or its weights cannot be had.
    """
    known = models.list_models(module=family)
    if name not in known:
        raise unknown("torchvision", name, known)
    usual = models.get_model_weights(name).DEFAULT
    if not is_file(weights) and weights != RANDOM:
        usual = _weights(name, weights)
        weights = usual.name  # the default may be another one in another version
    made, told, settings = _TORCHVISION.make(name, weights)
    module = still(made.module, device)
    return Network(module, made.features, usual.transforms, told, settings)


@dataclass(frozen=True, slots=True)
class _Headless:
    """A network without its last layer.

    Attributes:
        module: The rest.
        head: What the last layer was called.
        features: Values that it was given.
    """

    module: nn.Module
    head: str
    features: int


def _behead(module: nn.Module) -> _Headless:
    """Take off the last layer."""
    layers = [(name, part) for name, part in module.named_modules() if isinstance(part, _LAST)]
    name, last = layers[-1]
    *way, child = name.split(".")
    setattr(module.get_submodule(".".join(way)), child, nn.Identity())
    features = last.in_features if isinstance(last, nn.Linear) else last.in_channels
    return _Headless(module, name, features)


def _bare(name: str) -> _Headless:
    module: Any = models.get_model(name, weights=None, progress=False)
    if hasattr(module, "transform_input"):
        module.transform_input = True  # as with weights of torchvision's, whose colours differ
    return _behead(module)


def _fill(made: _Headless, path: Path) -> None:
    """Weights of a last layer of any size are left out."""
    given = weights_in(path)
    kept = {key: v for key, v in given.items() if not key.startswith(f"{made.head}.")}
    filled(made.module, kept, path)


def _weights(name: str, weights: str) -> Any:
    known = models.get_model_weights(name)
    names = [*known.__members__]
    if weights not in names:
        raise no_weights(name, weights, names)
    return known[weights]


def _fetch(name: str, weights: str) -> _Headless:
    try:
        module: nn.Module = models.get_model(name, weights=weights, progress=False)
    except (OSError, RuntimeError) as error:  # RuntimeError: a file with a wrong checksum
        raise not_to_be_had(f"weights {weights} of {name}", error) from error
    return _behead(module)


_TORCHVISION = Maker(_bare, _fill, _fetch)
