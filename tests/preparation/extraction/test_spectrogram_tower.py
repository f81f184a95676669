"""Log-mel spectrograms against Fourier sums and mel filters written out by hand."""

import numpy as np
import pytest

from continual_mm.preparation.extraction.media import Notes, audio_wave
from continual_mm.preparation.extraction.spectrogram_tower import FLOOR, log_mel


def slaney_mel(hertz):
    """Slaney's scale: linear below 1 kHz, then logarithmic, 27 steps to a factor of 6.4."""
    linear = 3 * hertz / 200
    return np.where(
        hertz < 1000, linear, 15 + 27 * np.log(np.maximum(hertz, 1) / 1000) / np.log(6.4)
    )


def filters():
    """(40, 201) triangles of area 1 between 20 Hz and 8 kHz."""
    grid = np.arange(0, 8000.001, 0.05)
    mels = slaney_mel(grid)
    edges = np.interp(np.linspace(*slaney_mel(np.array([20.0, 8000.0])), 42), mels, grid)
    bins = np.arange(201) * 40.0
    low, peak, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (peak - low), (high - bins) / (high - peak)
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)


def reference(wave):
    """D.3 of the published recipe, in double precision, a frame at a time."""
    y = wave.astype(np.float64)
    y = y - y.mean()
    y = np.concatenate([y[:1], y[1:] - 0.97 * y[:-1]])
    mirrored = np.concatenate([y[200:0:-1], y, y[-2:-202:-1]])
    n = np.arange(400)
    window = 0.54 - 0.46 * np.cos(2 * np.pi * n / 399)
    turns = np.exp(-2j * np.pi * np.outer(np.arange(201), n) / 400)
    frames = [mirrored[t : t + 400] * window for t in range(0, len(mirrored) - 399, 160)]
    power = filters() @ np.abs(turns @ np.array(frames).T) ** 2
    decibels = 10 * np.log10(np.maximum(power, 1e-10) / power.max())
    return np.maximum(decibels, -80).T


def noise(seconds, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal(round(16_000 * seconds))


def sine(hertz, seconds=1.0):
    return np.sin(2 * np.pi * hertz * np.arange(round(16_000 * seconds)) / 16_000)


WAVES = {
    "noise": noise(1.0) + 0.3,
    "tone": 0.5 * sine(1000.0),
    "swell": noise(1.3, seed=1) * np.linspace(0, 1, 20_800) ** 4,
}


@pytest.mark.parametrize("name", WAVES)
def test_the_published_recipe_is_followed(name):
    wave = WAVES[name].astype(np.float32)
    found = log_mel(wave, "reference")
    assert (found.dtype, found.shape) == (np.float32, (1 + len(wave) // 160, 40))
    assert found.max() == 0.0
    # Single precision tells little of what is 60 dB below the rest.
    audible = reference(wave) > -60
    assert np.abs(found - reference(wave))[audible].max() < 0.05
    assert np.abs(found - reference(wave)).mean() < 0.05


def test_the_published_recipe_is_followed_on_speech(test_data):
    wave = audio_wave(test_data / "grid_raw60" / "bbaf2n.mpg", 0.0, 2.9, Notes())
    difference = np.abs(log_mel(wave, "reference") - reference(wave))
    assert difference.max() < 0.1


@pytest.mark.parametrize("samples", [0, 1, 200, 16_000])
def test_silence_is_the_floor_and_as_published_the_loudest_value(samples):
    silence = np.zeros(samples, dtype=np.float32)
    assert (log_mel(silence, "robust") == FLOOR).all()
    assert (log_mel(silence, "reference") == 0.0).all()
    # No samples at all are published as 200 samples of silence.
    assert len(log_mel(silence)) == 1 + (samples or 200) // 160


def test_robust_values_do_not_depend_on_the_rest_of_the_clip():
    quiet, loud = 0.01 * sine(1000.0), sine(1000.0)
    alone = np.concatenate([quiet, 0.01 * sine(1000.0)]).astype(np.float32)
    beside = np.concatenate([quiet, loud]).astype(np.float32)
    first = slice(5, 90)
    assert np.abs(log_mel(beside)[first] - log_mel(alone)[first]).max() < 0.5
    relative = log_mel(beside, "reference")[first] - log_mel(alone, "reference")[first]
    loudest = log_mel(alone)[first].mean(0).argmax()
    assert relative[:, loudest].mean() == pytest.approx(-40, abs=1)


def test_ten_times_the_amplitude_are_20_db():
    wave = noise(0.5).astype(np.float32)
    assert log_mel(wave) - log_mel(wave / 10) == pytest.approx(20, abs=0.01)
