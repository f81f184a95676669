"""From raw media to features: frame descriptors, log-mel spectrograms, word vectors."""

from collections.abc import Sequence

import librosa
import numpy as np
from gensim.models import KeyedVectors, Word2Vec
from numpy.typing import NDArray

from continual_mm.data.narrated_shapes.attributes import SAMPLE_RATE
from continual_mm.data.narrated_shapes.captions import content_words
from continual_mm.data.narrated_shapes.card import CARD

HOP = 256
WINDOW = 512
Array = NDArray[np.float32]


def frame_features(film: NDArray[np.uint8]) -> Array:
    raw = film.astype(np.float32) / 255
    image = _blurred(raw)
    red, green, blue = np.moveaxis(image, -1, 0)
    luma = (red + green + blue) / 3
    first, second = (red - green), (red + green) / 2 - blue
    chroma = np.hypot(first, second)
    hue = np.arctan2(second, first)
    seen = np.maximum(chroma - np.float32(0.12), 0)
    change = np.abs(np.diff(chroma, axis=-3, prepend=chroma[..., :1, :, :]))
    rest = np.abs(raw - image).mean(-1)
    return np.concatenate(
        [
            luma.mean((-2, -1))[..., None],
            luma.std((-2, -1))[..., None],
            _edges(luma, 8, normalise=False),
            _cells(chroma, 4),
            _histogram(hue, seen, 8, 2 * np.pi, normalise=True),
            _edges(seen, 12, normalise=True),
            _moments(seen),
            change.mean((-2, -1))[..., None],
            rest.mean((-2, -1))[..., None],
            rest.std((-2, -1))[..., None],
        ],
        axis=-1,
    )


def _moments(plane: Array) -> Array:
    at = np.linspace(-1, 1, plane.shape[-1], dtype=np.float32)
    total = plane.mean((-2, -1))
    rows, columns = (
        plane.mean(-1) / (total[..., None] + np.float32(1e-3)) / 32,
        plane.mean(-2) / (total[..., None] + np.float32(1e-3)) / 32,
    )
    out = [np.sqrt(total)]
    for line in (rows, columns):
        mean = line @ at
        out += [mean, np.sqrt(np.maximum(line @ at**2 - mean**2, 0))]
    return np.stack(out, -1)


def _blurred(image: Array) -> Array:
    for axis in (-3, -2):
        before = np.roll(image, 1, axis)
        after = np.roll(image, -1, axis)
        image = (before + 2 * image + after) / 4
    return image


def _cells(plane: Array, number: int) -> Array:
    side = plane.shape[-1] // number
    blocks = plane.reshape(*plane.shape[:-2], number, side, number, side)
    return blocks.mean((-3, -1)).reshape(*plane.shape[:-2], number * number)


def _edges(plane: Array, bins: int, *, normalise: bool) -> Array:
    across = plane[..., 1:-1, 2:] - plane[..., 1:-1, :-2]
    down = plane[..., 2:, 1:-1] - plane[..., :-2, 1:-1]
    return _histogram(
        np.arctan2(down, across), np.hypot(across, down), bins, np.pi, normalise=normalise
    )


def _histogram(angle: Array, weight: Array, bins: int, period: float, *, normalise: bool) -> Array:
    pixels = angle.shape[-2] * angle.shape[-1]
    images = angle.size // pixels
    bin_ = np.floor(angle * np.float32(bins / period) + np.float32(0.5)).astype(np.int32) % bins
    where = bin_.reshape(images, pixels) + bins * np.arange(images, dtype=np.int32)[:, None]
    counts = np.bincount(where.ravel(), weight.ravel(), images * bins).reshape(images, bins)
    if normalise:
        counts = counts / (counts.sum(1, keepdims=True) + 1e-3)
    else:
        counts = counts / pixels
    return np.sqrt(counts).astype(np.float32).reshape(*angle.shape[:-2], bins)


def log_mel(waveforms: Array) -> Array:
    power = librosa.feature.melspectrogram(
        y=waveforms, sr=SAMPLE_RATE, n_fft=WINDOW, hop_length=HOP, n_mels=40, fmin=60.0
    )
    decibels = librosa.power_to_db(power, ref=1.0, amin=1e-7, top_db=None)
    return np.swapaxes(decibels, -1, -2).astype(np.float32)


def word_vectors(captions: Sequence[str], *, seed: int) -> KeyedVectors:
    model = Word2Vec(
        [content_words(caption) for caption in captions],
        vector_size=CARD["text"].features,
        window=13,
        min_count=1,
        sg=1,
        negative=10,
        epochs=10,
        sample=0,
        seed=seed + 1,
        workers=1,
    )
    return model.wv


def embedded(captions: Sequence[str], vectors: KeyedVectors) -> tuple[Array, NDArray[np.int64]]:
    out = np.zeros((len(captions), *CARD["text"].shape), np.float32)
    lengths = np.zeros(len(captions), np.int64)
    for row, sentence in enumerate(captions):
        words = [vectors[word] for word in content_words(sentence) if word in vectors]
        out[row, : len(words)] = words
        lengths[row] = len(words)
    return out, lengths
