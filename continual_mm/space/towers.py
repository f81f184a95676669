"""Towers that users choose: for features that are embeddings already, or any PyTorch module."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from inspect import signature
from typing import Self

import torch
from torch import Tensor, nn

from continual_mm.definitions.modality import Modality
from continual_mm.definitions.scenario import SpaceSettings
from continual_mm.space.encoders import Encoder, GatedUnit
from continual_mm.system.errors import InputError

Build = Callable[[Modality, SpaceSettings], nn.Module]
"""Makes a tower: an :class:`Encoder`, or a module that maps (n, ...) values to (n, size)."""


@dataclass(frozen=True, slots=True)
class Tower:
    """How a modality's encoder is built, where it is not the default one.

    ``kind`` is a registered name, empty for the default encoder, or the class of a module;
    ``weights`` are initial ones, see :func:`fill`, and ``source`` their name in problems.
    """

    kind: str
    build: Build
    trained: bool = True
    weights: Mapping[str, Tensor] | None = None
    source: str = ""

    @classmethod
    def of(cls, module: nn.Module, *, trained: bool = True) -> Self:
        """A tower that begins as a copy of a module, which itself stays as it is."""
        return cls(_class(module), lambda *_: deepcopy(module), trained)


def fingerprint(module: nn.Module) -> str:
    """Class and SHA-256 of the weights of a module, in one line."""
    digest = sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        plain = value.detach().cpu().contiguous().reshape(-1)
        digest.update(plain.view(torch.uint8).numpy().tobytes())
    return f"{_class(module)} {digest.hexdigest()}"


def _class(module: nn.Module) -> str:
    own = type(module)
    return f"{own.__module__}.{own.__qualname__}"


class Identity(Encoder):
    """Passes features on as embeddings: those of a model that has been trained elsewhere."""

    def __init__(self, modality: Modality, settings: SpaceSettings) -> None:
        super().__init__()
        self.pooled = modality.features

    def forward(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, D) -> (n, D), (n, D)."""
        return values, values


class Linear(Encoder):
    """A linear map of a feature vector, at first the identity where it has the size D."""

    def __init__(self, modality: Modality, settings: SpaceSettings) -> None:
        super().__init__()
        self.pooled = modality.features
        self.map = nn.Linear(modality.features, settings.dim)
        if modality.features == settings.dim:
            nn.init.eye_(self.map.weight)
            nn.init.zeros_(self.map.bias)

    def forward(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, features) -> (n, features), (n, D)."""
        return values, self.map(values)


class Adapted(Encoder):
    """Any module as an encoder; where its output is not of size D, a gated unit follows.

    The module is called with the values, (n, ...), and with ``lengths``, (n,) or None, if it takes
    an argument of that name. Its output, (n, size), is also the target of the reconstruction. A
    ValueError if it does not take items of the modality, or gives another shape.
    """

    def __init__(self, own: nn.Module, modality: Modality, settings: SpaceSettings) -> None:
        super().__init__()
        self.own = own
        self._takes_lengths = "lengths" in signature(own.forward).parameters
        self.pooled = self._size(modality)
        same = self.pooled == settings.dim
        self.head = nn.Identity() if same else GatedUnit(self.pooled, settings.dim)

    @torch.no_grad()
    def _size(self, modality: Modality) -> int:
        """Size of the module's output, found on two items of zeros."""
        was_training = self.own.training
        self.own.eval()
        place = next((p.device for p in self.own.parameters()), torch.device("cpu"))
        steps = modality.shape[0] if modality.kind.has_length else 1
        lengths = torch.full((2,), steps, device=place) if modality.kind.has_length else None
        what = f"the tower of {modality.name!r}, {type(self.own).__name__},"
        try:
            found = self._pooled(torch.zeros(2, *modality.shape, device=place), lengths)
        except (RuntimeError, TypeError, IndexError) as error:
            raise ValueError(
                f"{what} does not take items of shape {modality.shape}: {error}"
            ) from error
        finally:
            self.own.train(was_training)
        if not isinstance(found, Tensor) or found.dim() != 2 or found.shape[0] != 2:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"{what} gives {shape} for two items; it must give (2, size)")
        return found.shape[1]

    def _pooled(self, values: Tensor, lengths: Tensor | None) -> Tensor:
        pooled: Tensor = (
            self.own(values, lengths=lengths) if self._takes_lengths else self.own(values)
        )
        return pooled

    def forward(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, ...) -> (n, size), (n, D)."""
        pooled = self._pooled(values, lengths)
        return pooled, self.head(pooled)


def encoder_of(module: nn.Module, modality: Modality, settings: SpaceSettings) -> Encoder:
    """A module as an encoder; one that is an encoder already as it is."""
    return module if isinstance(module, Encoder) else Adapted(module, modality, settings)


def fill(encoder: Encoder, head: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Give an encoder its weights and, where there are some for it, its reconstruction head.

    ``weights``, called ``source`` in problems, are by their name in the encoder or in the module
    inside an :class:`Adapted` one, or those of both behind ``encoder.`` and ``reconstruction.``.
    """
    parts = {"encoder": dict(weights)}
    if any(name.startswith("encoder.") for name in weights):
        parts = {"encoder": {}, "reconstruction": {}}
        for name, value in weights.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = value
    target: nn.Module = encoder
    if isinstance(encoder, Adapted) and not parts["encoder"].keys() & encoder.state_dict().keys():
        target = encoder.own
    _load(target, parts["encoder"], source)
    if parts.get("reconstruction"):
        _load(head, parts["reconstruction"], source)


def _load(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    try:
        module.load_state_dict(dict(weights))
    except RuntimeError as error:
        problem = "; ".join(line.strip() for line in str(error).splitlines()[1:4])
        remedy = f"give the state dict of a {type(module).__name__} of these sizes"
        raise InputError.at(source, f"does not fit: {problem}", remedy) from error
