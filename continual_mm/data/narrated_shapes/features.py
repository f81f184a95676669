"""From raw media to features: frame descriptors, log-mel spectrograms, word vectors."""

from collections.abc import Mapping, Sequence
from typing import Any

import librosa
import numpy as np
from gensim.models import Word2Vec
from numpy.typing import NDArray

from continual_mm.data.narrated_shapes.attributes import SAMPLE_RATE
from continual_mm.data.narrated_shapes.captions import content_words
from continual_mm.data.narrated_shapes.card import CARD

HOP = 512  # audio samples from one spectrogram frame to the next (16 ms)

Array = NDArray[np.float32]
Floats = NDArray[np.floating[Any]]

_WINDOW = 512  # samples of one Fourier transform
_LOWEST = 60.0  # Hz, of the lowest mel band
_QUIETEST = 1e-7  # power that reads as the floor of -70 dB
_FAINTEST = np.float32(0.12)  # chroma below this counts as the grey background
_EPSILON = np.float32(1e-3)


def frame_features(frames: NDArray[np.uint8]) -> Array:
    """Describe every frame by colour, edges and change.

    Lightness is the mean of red, green and blue; chroma is the length and hue the angle of the two
    opponent colours (red against green, yellow against blue). In this order: mean and standard
    deviation of the lightness (2), its edges by orientation (8), chroma in 4 x 4 cells (16), hues
    of what is coloured (8), its edges by orientation (12), its amount, place and extent (5), change
    since the frame before (1), and what smoothing removes: mean and standard deviation (2).

    (items, slots, side, side, 3) -> (items, slots, 54).
    """
    raw = frames.astype(np.float32) / np.float32(255)
    image = _smoothed(raw)
    red, green, blue = np.moveaxis(image, -1, 0)
    lightness = (red + green + blue) / 3
    first, second = red - green, (red + green) / 2 - blue
    chroma = np.hypot(first, second)
    coloured = np.maximum(chroma - _FAINTEST, 0)
    change = np.abs(np.diff(chroma, axis=1, prepend=chroma[:, :1]))
    lost = np.abs(raw - image).mean(-1)
    parts = [
        lightness.mean((-2, -1))[..., None],
        lightness.std((-2, -1))[..., None],
        np.sqrt(_edges(lightness, bins=8)),
        _cells(chroma, per_side=4),
        np.sqrt(_shares(_histogram(np.arctan2(second, first), coloured, bins=8, turn=2 * np.pi))),
        np.sqrt(_shares(_edges(coloured, bins=12))),
        _moments(coloured),
        change.mean((-2, -1))[..., None],
        lost.mean((-2, -1))[..., None],
        lost.std((-2, -1))[..., None],
    ]
    return np.concatenate(parts, axis=-1, dtype=np.float32)


def log_mel(waveforms: Array) -> Array:
    """Log-mel spectrograms in dB: (items, samples) -> (items, 1 + samples // 256, 40)."""
    power = librosa.feature.melspectrogram(
        y=waveforms,
        sr=SAMPLE_RATE,
        n_fft=_WINDOW,
        hop_length=HOP,
        n_mels=CARD["audio"].features,
        fmin=_LOWEST,
    )
    # A fixed reference and no limit below the batch's peak: no item depends on another.
    decibels: Floats = librosa.power_to_db(power, ref=1.0, amin=_QUIETEST, top_db=None)
    return decibels.swapaxes(-1, -2).astype(np.float32)


def word_vectors(captions: Sequence[str], *, seed: int) -> dict[str, Array]:
    """Train skip-gram vectors of 32 numbers on the content words of some captions."""
    model = Word2Vec(
        [content_words(caption) for caption in captions],
        vector_size=CARD["text"].features,
        window=CARD["text"].shape[0],
        min_count=1,
        sg=1,
        negative=10,
        sample=0,
        epochs=10,
        seed=seed % 2**32,
        workers=1,  # more would make the order of the updates, and so the vectors, random
    )
    return {word: model.wv[word] for word in model.wv.index_to_key}


def embedded(
    captions: Sequence[str], vectors: Mapping[str, Array]
) -> tuple[Array, NDArray[np.int64]]:
    """(items, 12, 32) vectors of known words, zeros behind them, and (items,) how many they are."""
    values = np.zeros((len(captions), *CARD["text"].shape), dtype=np.float32)
    lengths = np.zeros(len(captions), dtype=np.int64)
    for row, caption in enumerate(captions):
        known = [vectors[word] for word in content_words(caption) if word in vectors]
        lengths[row] = len(known)
        values[row, : len(known)] = np.reshape(known, (-1, values.shape[-1]))
    return values, lengths


def _smoothed(image: Floats) -> Floats:
    """Binomial filter (1 2 1) down and across; the borders wrap."""
    for axis in (-3, -2):
        image = (np.roll(image, 1, axis) + 2 * image + np.roll(image, -1, axis)) / 4
    return image


def _cells(plane: Floats, *, per_side: int) -> Floats:
    """Means over a grid of cells, row by row."""
    *leading, side, _ = plane.shape
    length = side // per_side
    blocks = plane.reshape(*leading, per_side, length, per_side, length)
    means: Floats = blocks.mean((-3, -1)).reshape(*leading, per_side**2)
    return means


def _edges(plane: Floats, *, bins: int) -> Floats:
    """Mean gradient by its orientation over half a turn, as in a histogram of gradients."""
    across = plane[..., 1:-1, 2:] - plane[..., 1:-1, :-2]
    down = plane[..., 2:, 1:-1] - plane[..., :-2, 1:-1]
    return _histogram(np.arctan2(down, across), np.hypot(across, down), bins=bins, turn=np.pi)


def _histogram(angle: Floats, weight: Floats, *, bins: int, turn: float) -> Floats:
    """Mean weight of the pixels by angle, whose first bin is centred on 0."""
    *leading, rows, columns = angle.shape
    pixels = rows * columns
    nearest = np.floor(angle * np.float32(bins / turn) + np.float32(0.5)).astype(np.int64) % bins
    images = np.arange(angle.size // pixels)[:, None]
    where = (nearest.reshape(-1, pixels) + bins * images).ravel()
    sums = np.bincount(where, weight.ravel(), bins * len(images))
    means: Floats = (sums / pixels).reshape(*leading, bins)
    return means


def _shares(histogram: Floats) -> Floats:
    shares: Floats = histogram / (histogram.sum(-1, keepdims=True) + _EPSILON)
    return shares


def _moments(plane: Floats) -> Floats:
    """Root of the mean; centre and standard deviation of the rows, then of the columns."""
    at = np.linspace(-1, 1, plane.shape[-1], dtype=np.float32)
    total = plane.sum((-2, -1)) + _EPSILON
    moments = [np.sqrt(plane.mean((-2, -1)))]
    for line in (plane.sum(-1), plane.sum(-2)):
        share = line / total[..., None]
        centre = (share * at).sum(-1)
        moments += [centre, np.sqrt(np.maximum((share * at**2).sum(-1) - centre**2, 0))]
    return np.stack(moments, axis=-1)
