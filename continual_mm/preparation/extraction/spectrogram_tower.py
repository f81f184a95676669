"""Log-mel spectrograms of 16 kHz audio, as published for AVLnet and MCN or in a robust form.

Source: AVLnet (Rouditchenko et al. 2021), its ``audio_to_spectrograms.py``, on which MCN builds.
"""

from typing import Any, Literal

import numpy as np
from librosa import power_to_db, stft  # librosa itself is lazy: processes would each wait
from librosa.filters import mel
from numpy.typing import NDArray

from continual_mm.definitions.modality import Kind
from continual_mm.preparation.extraction.media import SAMPLE_RATE
from continual_mm.preparation.extraction.towers import Features, Setting

MELS = 40  # mel bands, from 20 Hz to 8 kHz
FLOOR = -80.0
"""Decibels of silence in the robust form; the published one ends 80 dB below its loudest value."""

_WINDOW, _HOP = 400, 160  # samples: 25 ms and 10 ms
_LOWEST = 20.0  # Hz
_EMPTY = 200  # samples of silence that stand for no samples at all
_PRE_EMPHASIS = 0.97


def log_mel(wave: NDArray[np.float32], mode: Literal["robust", "reference"] = "robust") -> Features:
    """(samples,) of audio at 16 kHz -> (1 + samples // 160, 40) power in decibels.

    The mean is taken away and high frequencies are raised, ``y[t] - 0.97 y[t - 1]``, before the
    Fourier transforms of 25 ms every 10 ms, centred, the audio mirrored at its ends. ``reference``
    is relative to the loudest value: in [-80, 0], and 0, as loud as can be, if all is silent.
    ``robust`` is relative to a power of 1: a full-scale sine reaches about 20, silence is
    :data:`FLOOR`, and equal loudness gives equal values, whatever else the clip contains.
    """
    audio = wave.astype(np.float32) if len(wave) else np.zeros(_EMPTY, dtype=np.float32)
    audio = audio - audio.mean()
    raised = np.append(audio[:1], audio[1:] - np.float32(_PRE_EMPHASIS) * audio[:-1])
    centred = np.pad(raised, _WINDOW // 2, mode="reflect" if len(raised) > 1 else "edge")
    spectrum = stft(
        centred, n_fft=_WINDOW, hop_length=_HOP, window=np.hamming(_WINDOW), center=False
    )
    bands = mel(sr=SAMPLE_RATE, n_fft=_WINDOW, n_mels=MELS, fmin=_LOWEST)
    # No BLAS: its sums may depend on how many threads it has.
    power: NDArray[Any] = np.einsum("bf,ft->tb", bands, np.abs(spectrum) ** 2)
    if mode == "reference":
        decibels = power_to_db(power, ref=np.max, amin=1e-10, top_db=80.0)
    else:
        decibels = power_to_db(power, ref=1.0, amin=1e-10, top_db=None)
        decibels = np.maximum(decibels, np.float32(FLOOR))
    return np.asarray(decibels, dtype=np.float32)


class LogMelTower:
    """Log-mel spectrograms, 100 steps per second; see :func:`log_mel`."""

    signal: Literal["audio"] = "audio"
    sample_rate = SAMPLE_RATE
    kind = Kind.SPECTROGRAM
    features = MELS

    def __init__(self, *, mode: Literal["robust", "reference"] = "robust") -> None:
        if mode not in ("robust", "reference"):
            raise ValueError(f"there is no mode {mode!r}: robust or reference")
        self._mode = mode
        self.description = f"{MELS} log-mel bands, {mode}"
        self.settings: dict[str, Setting] = {"mode": mode}

    def encode(self, wave: NDArray[np.float32]) -> Features:
        """(samples,) at 16 kHz -> (1 + samples // 160, 40) dB."""
        return log_mel(wave, self._mode)
