"""How many numbers the towers of a space hold and make, from their settings alone; no torch."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from math import prod
from types import MappingProxyType
from typing import NamedTuple

from continual_mm.definitions.modality import Kind, Modality
from continual_mm.definitions.scenario import SpaceSettings


class Size(NamedTuple):
    """Of one tower with its reconstruction head."""

    weights: int  # numbers that it holds
    activations: int  # numbers that it makes of one item, at least


def tower_size(kind: str, modality: Modality, settings: SpaceSettings) -> Size:
    """The size of a built-in tower; of one from elsewhere only its head's is known.

    ``kind`` is its registered name, empty for the usual one of the modality's kind of signal.
    """
    of_kind = _ENCODERS.get(kind or modality.kind)
    if of_kind is None:
        return Size(0, prod(modality.shape))
    if settings.kind == "fusion":
        return _tokeniser(kind or modality.kind, modality, settings)
    weights, activations, pooled = of_kind(modality, settings)
    units = settings.reconstruction_units
    head = _linear(settings.dim, units) + _linear(units, pooled)
    return Size(weights + head, activations + prod(modality.shape) + units + pooled)


def transformer_size(settings: SpaceSettings) -> Size:
    """The size of what all modalities share; activations are of each token that enters it."""
    if settings.kind != "fusion":
        return Size(0, 0)
    width = settings.token_size
    block = _linear(width, 3 * width) + 3 * _linear(width, width) + 4 * width
    return Size(settings.blocks * block, settings.blocks * 8 * width)


def _tokeniser(kind: str, modality: Modality, settings: SpaceSettings) -> Size:
    """What a modality has of its own beside the transformer, and what this makes of it alone."""
    width, read, made = settings.token_size, 0, 0
    time, features = (modality.shape[0] if modality.kind.has_length else 1), modality.features
    if kind == Kind.SPECTROGRAM:
        read, made, features, time = _trunk(
            modality, settings, width=settings.width, kernel=9, stride=2
        )
    elif kind == Kind.FRAMES:
        read, made, features, time = _trunk(
            modality, settings, width=2 * settings.width, kernel=3, stride=1
        )
    elif kind not in (Kind.VECTOR, Kind.TOKENS):
        time, features = 1, modality.features if kind == "identity" else settings.dim
        read, made, _ = _ENCODERS[kind](modality, settings)
    units = _linear(features, width) + _linear(width, width) + 5 * width
    units += _linear(width, settings.dim) + _linear(settings.dim, settings.dim) + 2 * settings.dim
    alone = time * (4 * width + transformer_size(settings).activations) + 3 * settings.dim
    return Size(read + units, made + prod(modality.shape) + alone)


_Parts = tuple[int, int, int]  # weights, activations of an item, size of what is reconstructed


def _linear(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs


def _gated(inputs: int, settings: SpaceSettings) -> tuple[int, int]:
    """Weights and activations of a gated unit; with a norm, where the space is not as published."""
    dim = settings.dim
    norm = 0 if settings.reference else 2 * dim
    return _linear(inputs, dim) + norm + _linear(dim, dim), 3 * dim


def _vector(modality: Modality, settings: SpaceSettings) -> _Parts:
    return (*_gated(modality.features, settings), modality.features)


def _tokens(modality: Modality, settings: SpaceSettings) -> _Parts:
    weights, activations = _gated(settings.dim, settings)
    norm = 0 if settings.reference else 2 * settings.dim
    words = _linear(modality.features, settings.dim) + norm
    return weights + words, activations + modality.shape[0] * settings.dim, settings.dim


def _flat(modality: Modality, settings: SpaceSettings) -> _Parts:
    weights, activations = _gated(settings.dim, settings)
    moments = _linear(prod(modality.shape), settings.dim) + 2 * settings.dim
    return weights + moments, activations + settings.dim, settings.dim


def _spectrogram(modality: Modality, settings: SpaceSettings) -> _Parts:
    return _temporal(modality, settings, width=settings.width, kernel=9, stride=2)


def _frames(modality: Modality, settings: SpaceSettings) -> _Parts:
    if settings.reference:
        return _vector(modality, settings)
    return _temporal(modality, settings, width=2 * settings.width, kernel=3, stride=1)


def _temporal(
    modality: Modality, settings: SpaceSettings, *, width: int, kernel: int, stride: int
) -> _Parts:
    """Residual stages over time, their mean and maximum, a gated unit."""
    # As published, the mean is all.
    weights, made, channels, _ = _trunk(
        modality, settings, width=width, kernel=kernel, stride=stride
    )
    pooled = channels if settings.reference else 2 * channels
    gated, further = _gated(pooled, settings)
    return weights + gated, made + further, pooled


def _trunk(
    modality: Modality, settings: SpaceSettings, *, width: int, kernel: int, stride: int
) -> tuple[int, int, int, int]:
    """Weights and activations of residual stages, each after the first with twice the channels.

    Also the channels and the time steps that come out.
    """
    channels = [width * 2 ** max(stage - 1, 0) for stage in range(settings.depth + 1)]
    blocks = 2 if settings.reference else 1  # as published
    time, weights = modality.shape[0], _linear(modality.features, width)
    activations = time * width
    for narrow, wide in pairwise(channels):
        time = -(-time // stride)
        weights += kernel * (narrow + (2 * blocks - 1) * wide) * wide + narrow * wide
        activations += 2 * blocks * time * wide
    return weights, activations, channels[-1], time


def _identity(modality: Modality, settings: SpaceSettings) -> _Parts:
    return 0, 0, modality.features


def _one_layer(modality: Modality, settings: SpaceSettings) -> _Parts:
    return _linear(modality.features, settings.dim), settings.dim, modality.features


_ENCODERS: Mapping[str, Callable[[Modality, SpaceSettings], _Parts]] = MappingProxyType(
    {
        Kind.VECTOR: _vector,
        Kind.TOKENS: _tokens,
        Kind.SPECTROGRAM: _spectrogram,
        Kind.FRAMES: _frames,
        "flat": _flat,
        "identity": _identity,
        "linear": _one_layer,
    }
)
