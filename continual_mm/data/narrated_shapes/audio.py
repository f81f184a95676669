"""A waveform: notes on an instrument and a steady whistle, over coloured noise."""

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.narrated_shapes import attributes

Samples = NDArray[np.float64]

# Resonances in Hz that sound along with an instrument's notes whatever their pitch: its timbre.
_RESONANCES: dict[str, tuple[float, ...]] = {
    "flute": (),
    "trumpet": (1300.0,),
    "violin": (2000.0,),
    "bell": (3100.0,),
    "organ": (1300.0, 3100.0),
    "drum": (1300.0, 2000.0),
}
_LOWEST = 300.0  # Hz, pitch of the largest shape
_OCTAVES = 1.5  # from there to the pitch of the smallest
_GLIDE = 0.4  # octaves by which a note rises or falls
_LENGTH = {"short": 0.7, "long": 1.7, "trembling": 1.7}  # slots
_TREMOLO = 12.0  # Hz
_DECAY = 0.7  # by how much the logarithm of a note's amplitude falls
_ATTACK = 0.005  # seconds
_RELEASE = 0.016  # seconds
_GAIN = {"soft": -8.0, "moderate": 0.0, "loud": 8.0}  # dB
_LEVEL = 0.06  # root mean square of a moderate note's fundamental as it begins
_WHISTLE = (4500.0, 7500.0)  # Hz, at the lowest and the highest path
_WHISTLE_LEVEL = 1.5  # amplitude in units of the noise's root mean square
_TILT = 0.5  # the noise's amplitude falls with this power of the frequency


def waveform(item: attributes.Attributes, rng: np.random.Generator) -> NDArray[np.float32]:
    """Synthesise an item at 16 kHz as (slots * 1280,) samples in [-1, 1]."""
    samples = item.slots * attributes.SLOT_SAMPLES
    note = _note(item, rng)
    tune = np.zeros(samples + len(note))
    for beat in item.beats:
        start = beat * attributes.SLOT_SAMPLES
        tune[start : start + len(note)] += note
    gain = _GAIN[item.loudness] + attributes.LOUDNESS_JITTER * rng.standard_normal()
    background = _noise(samples, rng) + _whistle(item, samples, rng)
    quieter = -rng.uniform(*attributes.SIGNAL_TO_NOISE)
    mixed = _ratio(gain) * tune[:samples] + _ratio(quieter) * background
    return np.clip(_LEVEL * mixed, -1, 1).astype(np.float32)


def _ratio(decibels: float) -> float:
    return float(10 ** (decibels / 20))


def _note(item: attributes.Attributes, rng: np.random.Generator) -> Samples:
    """One note; its fundamental begins with a root mean square of 1."""
    length = int(_LENGTH[item.articulation] * attributes.SLOT_SAMPLES)
    seconds = np.arange(length) / attributes.SAMPLE_RATE
    passed = np.linspace(0, 1, length)
    register = _OCTAVES * (1 - attributes.perceived(item.size, attributes.HEARD_JITTER, rng))
    bend = _GLIDE * item.course[1] * (passed - 0.5)
    cycles = np.cumsum(_LOWEST * 2 ** (register + bend)) / attributes.SAMPLE_RATE
    tone = np.sin(2 * np.pi * cycles)
    for hertz in _RESONANCES[item.instrument]:
        tone += np.sin(2 * np.pi * (hertz * seconds + rng.random()))
    tone *= np.minimum(1, seconds / _ATTACK) * np.minimum(1, seconds[::-1] / _RELEASE)
    tone *= np.sqrt(2) * np.exp(-_DECAY * passed)
    if item.articulation == "trembling":
        tone *= 0.55 + 0.45 * np.cos(2 * np.pi * _TREMOLO * seconds)
    return tone


def _whistle(item: attributes.Attributes, samples: int, rng: np.random.Generator) -> Samples:
    lowest, highest = _WHISTLE
    hertz = lowest * (highest / lowest) ** attributes.perceived(
        item.height, attributes.HEARD_JITTER, rng
    )
    cycles = hertz * np.arange(samples) / attributes.SAMPLE_RATE + rng.random()
    whistle: Samples = _WHISTLE_LEVEL * np.sin(2 * np.pi * cycles)
    return whistle


def _noise(samples: int, rng: np.random.Generator) -> Samples:
    """Noise between white and red, of root mean square 1; flat below 50 Hz."""
    hertz = np.fft.rfftfreq(samples, 1 / attributes.SAMPLE_RATE)
    white = np.fft.rfft(rng.standard_normal(samples))
    coloured = np.fft.irfft(white * np.maximum(hertz, 50) ** -_TILT, samples)
    noise: Samples = coloured / np.sqrt(np.mean(coloured**2))
    return noise
