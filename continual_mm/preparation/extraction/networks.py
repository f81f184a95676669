"""Networks of libraries as feature extractors: their weights, and how they are run."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from continual_mm.data.weights import read_weights
from continual_mm.preparation.extraction.towers import RANDOM, Features, Setting
from continual_mm.system.errors import InputError, first_few, first_line, suggestion
from continual_mm.system.files import checksum
from continual_mm.system.seeds import seed_for

BLOCK = 16  # images that go through a network at once
_PARALLEL = "module."  # what torch's DistributedDataParallel puts before the names of weights


@dataclass(frozen=True, slots=True)
class Loaded:
    """A network in evaluation mode, which is not trained; settings identify it and its weights."""

    network: Any
    description: str
    settings: dict[str, Setting]


def load(
    name: str,
    weights: str,
    device: str,
    *,
    create: Callable[[str], nn.Module],
    download: Callable[[str, str], nn.Module],
) -> Loaded:
    """A network of a library, created with random weights or downloaded with trained ones.

    Weights are the path of a file, ``random`` (the same everywhere), or a name of the library's.
    """
    with quiet():
        if is_file(weights) or weights == RANDOM:
            source, identity = "random weights", RANDOM
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed_for(0, "extraction", name))
                network = create(name)
            if is_file(weights):
                path = Path(weights)
                _fill(network, path)
                source, identity = f"weights from {path.name}", checksum(path)
        else:
            network, source, identity = download(name, weights), weights, weights
    network = network.eval().requires_grad_(False).to(device)
    return Loaded(network, f"{name}, {source}", {"network": name, "weights": identity})


def _fill(network: nn.Module, path: Path) -> None:
    """Copy the weights of a file, which may be of a network that was trained in parallel."""
    weights = read_weights(path)
    if all(name.startswith(_PARALLEL) for name in weights):
        weights = {name.removeprefix(_PARALLEL): value for name, value in weights.items()}
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        lines = [_shortened(line.strip()) for line in str(error).splitlines()]
        problem = f"does not fit the network: {'; '.join(lines[1:3])}"
        raise InputError.at(path, problem, "name the network it was saved of") from error


def _shortened(line: str) -> str:
    """A line of torch's about names, of which there may be hundreds, with a few of them."""
    what, colon, names = line.rstrip(" .").partition(": ")
    return f"{what}{colon}{first_few(names.split(', '))}" if "key(s)" in what else line


@contextmanager
def quiet() -> Iterator[None]:
    """Without warnings of libraries: towers describe their weights themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def run(network: Callable[[], Tensor], *, unit_length: bool = False) -> Features:
    """The float32 outputs of a network, without gradients; their rows may be made of length 1."""
    # With one thread sums have the same order in every process.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            values = network().float()
            values = normalize(values, dim=-1) if unit_length else values
            features: Features = values.cpu().numpy()
            return features
    finally:
        torch.set_num_threads(before)


def run_on_images(
    network: Callable[[Tensor], Tensor],
    prepare: Callable[[Tensor], Tensor],
    images: NDArray[np.uint8],
    device: str,
    *,
    unit_length: bool = False,
) -> Features:
    """The outputs of a network for images or windows of them, (..., height, width, 3) RGB."""
    batch = torch.from_numpy(images).movedim(-1, -3).to(device)
    return run(lambda: network(prepare(batch)), unit_length=unit_length)


def fingerprint(network: nn.Module) -> str:
    """A digest of the names and weights of a network."""
    digest = blake2b(digest_size=16)
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()


def is_file(weights: str) -> bool:
    """Whether a user means a file with weights, and no name such as ``IMAGENET1K_V2``."""
    return "/" in weights or bool(Path(weights).suffix)


def download_failed(what: str, error: Exception) -> InputError:
    """The error where a download failed."""
    remedy = "download them where there is a network and give the file, or try weights 'random'"
    return InputError.at(what, f"cannot be downloaded: {first_line(error)}", remedy)


def unknown_network(library: str, name: str, known: Sequence[str]) -> InputError:
    """The error for a network that a library does not have."""
    remedy = f"{suggestion(name, known)}{library} has {', '.join(known)}"
    return InputError.at(f"network {name!r}", f"{library} has none", remedy)


def unknown_weights(network: str, weights: str, known: Sequence[str]) -> InputError:
    """The error for weights that a library does not have for a network."""
    remedy = f"{suggestion(weights, known)}there are {', '.join(known)}, a file, or {RANDOM}"
    return InputError.at(f"network {network!r}", f"no weights {weights!r}", remedy)
