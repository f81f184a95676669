"""A waveform: notes on an instrument in a noisy place."""

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.narrated_shapes.attributes import (
    HEARD_JITTER,
    LOUDNESS_JITTER,
    SAMPLE_RATE,
    SIGNAL_TO_NOISE,
    SLOT_SAMPLES,
    Attributes,
    noticed,
    perceived,
)

Samples = NDArray[np.float64]

# Each instrument's formants in Hz: fixed resonances that shape its partials at any pitch.
_FORMANTS: dict[str, tuple[float, ...]] = {
    "flute": (),
    "trumpet": (1300,),
    "violin": (2000,),
    "bell": (3100,),
    "organ": (1300, 3100),
    "drum": (1300, 2000),
}
_RESONANCE = 0.15  # octaves, half the width of a formant
_OCTAVES = 1.5  # of pitch between the largest and the smallest shape
_LOWEST = 300.0  # Hz
_GLIDE = 0.4  # octaves that a note rises by while the shape moves up
_NOTE_SLOTS = {"short": 0.7, "long": 1.7, "trembling": 1.7}
_TREMOLO = 25.0  # Hz
_GAIN = {"soft": -8.0, "moderate": 0.0, "loud": 8.0}  # dB
_LEVEL = 0.06  # root mean square of a moderate note
_WHISTLE = (4500.0, 7500.0)  # Hz
_CLICKS = (3.0, 60.0)  # per second
_ATTACK = 0.005  # seconds
_AMBIENCE = 2.0  # strength of the ambience in units of the background noise


def waveform(item: Attributes, dice: np.random.Generator) -> NDArray[np.float32]:
    """Record an item at 16 kHz, as (slots * 1280,) in [-1, 1]."""
    samples = item.slots * SLOT_SAMPLES
    note = _note(item, dice)
    gain = _GAIN[item.loudness] + LOUDNESS_JITTER * dice.standard_normal()
    tune = np.zeros(samples + len(note))
    for beat in noticed(item.beats, dice):
        start = beat * SLOT_SAMPLES
        tune[start : start + len(note)] += note
    noise = _LEVEL * _ratio(-dice.uniform(*SIGNAL_TO_NOISE)) * _noise(item, samples, dice)
    mixed = _LEVEL * _ratio(gain) * tune[:samples] + noise
    return np.clip(mixed, -1, 1).astype(np.float32)


def _ratio(decibels: float) -> float:
    return float(10 ** (decibels / 20))


def _note(item: Attributes, dice: np.random.Generator) -> Samples:
    """One note of root mean square 1 while it sounds."""
    length = int(_NOTE_SLOTS[item.articulation] * SLOT_SAMPLES)
    passed = np.linspace(0, 1, length)
    seconds = np.arange(length) / SAMPLE_RATE
    register = _OCTAVES * (1 - perceived(item.size, HEARD_JITTER, dice))
    bend = _GLIDE * item.course[1] * (passed - 0.5)
    phase = 2 * np.pi * np.cumsum(_LOWEST * 2 ** (register + bend)) / SAMPLE_RATE
    tone = np.sin(phase) * 1.0
    for formant in _FORMANTS[item.instrument]:
        tone += np.sin(2 * np.pi * (formant * seconds + dice.random()))
    tone *= np.minimum(1, seconds / _ATTACK) * np.minimum(1, (1 - passed) * length * 0.004)
    tone *= np.exp(-0.7 * passed)
    if item.articulation == "trembling":
        tone *= 0.55 + 0.45 * np.cos(2 * np.pi * _TREMOLO * seconds)
    return tone * 1.4


def _noise(item: Attributes, samples: int, dice: np.random.Generator) -> Samples:
    """Background noise whose colour tells the shade, with the ambience over it."""
    tilt = 1 - perceived(item.shade, HEARD_JITTER, dice)
    hertz = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    # Between white (0) and red (-1 per octave of amplitude), pivoting at 1 kHz; below 50 Hz flat.
    background = _coloured((np.maximum(hertz, 50) / 1000) ** -tilt, dice)
    background += _whistle(item, samples, dice) + _crackle(item, samples, dice)
    return background + _AMBIENCE * _ambience(item, hertz, dice)


def _whistle(item: Attributes, samples: int, dice: np.random.Generator) -> Samples:
    height = perceived(item.height, HEARD_JITTER, dice)
    pitch = _WHISTLE[0] * (_WHISTLE[1] / _WHISTLE[0]) ** height
    return 1.5 * np.sin(2 * np.pi * (pitch * np.arange(samples) / SAMPLE_RATE + dice.random()))


def _crackle(item: Attributes, samples: int, dice: np.random.Generator) -> Samples:
    fewest, most = _CLICKS
    rate = fewest * (most / fewest) ** perceived(item.sparkle, HEARD_JITTER, dice)
    clicks = np.zeros(samples)
    number = round(rate * samples / SAMPLE_RATE)
    clicks[dice.integers(samples, size=number)] = 30 * dice.choice((-1, 1), size=number)
    return clicks


def _ambience(item: Attributes, hertz: Samples, dice: np.random.Generator) -> Samples:
    samples = 2 * (len(hertz) - 1)
    if item.ambience == "rain":
        return _coloured(_band(hertz, 2400, 2700), dice)
    if item.ambience == "wind":
        return _coloured(_band(hertz, 180, 260), dice)
    if item.ambience == "engine":
        return _coloured(_band(hertz, 60, 150), dice)
    if item.ambience == "murmur":
        swell = 1 + np.sin(2 * np.pi * (5 * np.arange(samples) / SAMPLE_RATE + dice.random()))
        return swell * _coloured(_band(hertz, 950, 1100), dice)
    return np.zeros(samples)


def _band(hertz: Samples, low: float, high: float) -> Samples:
    return ((hertz > low) & (hertz < high)).astype(float)


def _coloured(spectrum: Samples, dice: np.random.Generator) -> Samples:
    """Noise with an amplitude spectrum, of root mean square 1."""
    white = np.fft.rfft(dice.standard_normal(2 * (len(spectrum) - 1)))
    coloured = np.fft.irfft(white * spectrum)
    return coloured / np.sqrt(np.mean(coloured**2))
