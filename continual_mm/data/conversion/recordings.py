"""Videos as a store keeps them: a recording of each, which items are windows of."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.published.recipe import Recipe
from continual_mm.data.published.vectors import WordVectors
from continual_mm.data.store.layout import Layout, Windows, Words
from continual_mm.data.store.writer import StoreWriter
from continual_mm.modality import Kind, Modality

Floats = NDArray[np.floating[Any]]
Parts = tuple[Floats, Floats, Floats]
"""2D and 3D features and sound of a video, time first."""

COMPARED = 32
"""Videos whose sizes are compared, so that no odd one decides what is right."""

_2D, _3D, _SOUND = "features_2d", "features_3d", "sound"
"""Columns of the recordings."""


def usual(videos: Iterable[Parts]) -> Parts:
    """The first of some videos whose features are of the sizes that most have."""
    given = tuple(videos)
    ((sizes, _),) = Counter(map(_sizes, given)).most_common(1)
    return next(parts for parts in given if _sizes(parts) == sizes)


def _sizes(parts: Parts) -> tuple[int, ...]:
    return tuple(part.shape[1] for part in parts)


def layout_of(
    features_2d: Floats, features_3d: Floats, sound: Floats, vectors: WordVectors, recipe: Recipe
) -> Layout:
    """What items have: ``video``, the largest values of a window, ``audio`` and ``text``.

    Args:
        features_2d: (2D rows, 2D features) of any of the videos.
        features_3d: (3D rows, 3D features).
        sound: (frames, mels).
        vectors: Of words.
        recipe: How many frames an item has, and whether texts are filled up.
    """
    sizes = {_2D: features_2d.shape[1], _3D: features_3d.shape[1]}
    mels = sound.shape[1]
    heard = Modality("audio", Kind.SPECTROGRAM, (recipe.audio_frames, mels))
    text = Modality("text", Kind.TOKENS, (1, vectors.features))
    return (
        Windows(Modality("video", Kind.VECTOR, (sum(sizes.values()),)), sizes, "max"),
        Windows(heard, {_SOUND: mels}),
        Words(text, vectors.values, blank=recipe.reference),
    )


def written(
    writer: StoreWriter,
    name: str,
    parts: Parts,
    left_out: list[Complaint] | None,
) -> int | None:
    """The number of a video's recording; None if it is faulty and left out with its items.

    Args:
        writer: Of the store.
        name: The video's.
        parts: What it is made of.
        left_out: Takes the complaints about a faulty one; without it they end the writing.
    """
    try:
        return writer.recording(name, dict(zip((_2D, _3D, _SOUND), parts, strict=True)))
    except RefusedError as error:
        if left_out is None:
            raise
        left_out.extend(error.complaints)
        return None
