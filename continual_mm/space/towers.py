"""Encoders of one's own: features that are embeddings already, or any module from Python."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from inspect import signature
from typing import Self

import torch
from torch import Tensor, nn

from continual_mm.definitions import SpaceSettings
from continual_mm.modality import Modality
from continual_mm.space.encoders import Encoder
from continual_mm.space.units import GatedUnit

Build = Callable[[Modality, SpaceSettings], nn.Module]
"""Makes a tower: an :class:`Encoder`, or a module that maps (n, ...) values to (n, size)."""


@dataclass(frozen=True, slots=True)
class Tower:
    """How a modality's encoder comes about, where it is not the usual one.

    Attributes:
        kind: A registered name, or the class of an object from Python; for descriptions.
        build: Makes the encoder.
        trained: Whether training changes it.
    """

    kind: str
    build: Build
    trained: bool = True

    @classmethod
    def of(cls, module: nn.Module) -> Self:
        """A tower that begins as a copy of a module, which itself stays as it is."""
        own = type(module)
        return cls(f"{own.__module__}.{own.__qualname__}", lambda *_: deepcopy(module))


class Identity(Encoder):
    """Takes features for embeddings: those of a model that has been trained elsewhere."""

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
    """Any module as an encoder; where its output is not of size D, a gated unit comes behind it.

    The module is called with the values, (n, ...), and with ``lengths``, (n,) or None, if it takes
    an argument of that name. What it gives, (n, size), is also what the reconstruction aims at.

    Raises:
        ValueError: If the module does not take items of the modality, or gives another shape.
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
