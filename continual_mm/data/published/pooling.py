"""From rows of 2D and 3D features to what the published models see of a clip."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.published.recipe import Mode

Array = NDArray[np.float32]

_LEAST_NORM = np.float32(1e-12)


def largest(features: NDArray[np.floating[Any]]) -> Array | None:
    """The largest value of each feature over time: (time, features) -> (features,).

    Returns:
        None if there is no time step.
    """
    if not len(features):
        return None
    values: Array = features.max(axis=0).astype(np.float32)
    return values


def unit(vectors: NDArray[np.floating[Any]]) -> Array:
    """Divide by the Euclidean norm over the last axis; zeros stay zeros."""
    values = vectors.astype(np.float32)
    norms = np.linalg.norm(values, axis=-1, keepdims=True)
    scaled: Array = values / np.maximum(norms, _LEAST_NORM)
    return scaled


def halves(
    first: NDArray[np.floating[Any]] | None,
    second: NDArray[np.floating[Any]] | None,
    *,
    sizes: tuple[int, int],
    mode: Mode,
) -> Array | None:
    """Join the 2D and the 3D half of a clip, each of norm 1, so that a whole one has norm √2.

    Args:
        first: (2D features,), or None if the clip has none.
        second: (3D features,), or None.
        sizes: How many features each half has.
        mode: Where both are None, ``reference`` gives zeros and ``robust`` None: the clip lacks the
            modality. One that is None is zeros in either.

    Returns:
        (2D features + 3D features,).
    """
    if first is None and second is None and mode == "robust":
        return None
    parts = [
        np.zeros(size, np.float32) if half is None else unit(half)
        for half, size in zip((first, second), sizes, strict=True)
    ]
    return np.concatenate(parts)


def steps(first: NDArray[np.floating[Any]], second: NDArray[np.floating[Any]]) -> Array:
    """Join 2D and 3D features step by step, each half of each step of norm 1.

    The step of the 2D half is the one nearest below the 3D step, as ``interpolate`` of torch takes
    it by default and the fusion transformer's reader uses it.

    Args:
        first: (2D steps, 2D features), at least one step.
        second: (3D steps, 3D features).

    Returns:
        (3D steps, 2D features + 3D features).
    """
    nearest = np.arange(len(second)) * len(first) // max(len(second), 1)
    return np.concatenate([unit(first[nearest]), unit(second)], axis=-1)
