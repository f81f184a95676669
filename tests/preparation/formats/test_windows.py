"""Windows around captions, and the slices of features that lie in them."""

import random

import numpy as np
import pytest

from continual_mm.preparation.formats.howto100m import (
    Clip,
    feature_slice,
    frame_at,
    grown,
    sound_slice,
)

librosa_core = pytest.importorskip("librosa.core")


def described(caption: dict[str, list[float]], index: int, min_time: float) -> tuple[object, ...]:
    """The growth of a window as the specification tells it, word for word."""
    start, end, words = caption["start"][index], caption["end"][index], str(index)
    previous, following = index - 1, index + 1
    while end - start < min_time:
        has_previous, has_following = previous >= 0, following < len(caption["start"])
        if has_previous and has_following:
            shorter = end - caption["start"][previous] <= caption["end"][following] - start
            step = "previous" if shorter else "following"
        elif has_previous or has_following:
            step = "previous" if has_previous else "following"
        else:
            return start, end, words
        if step == "previous":
            start = caption["start"][previous]
            words += f" {previous}"
            previous -= 1
        else:
            end = caption["end"][following]
            words += f" {following}"
            following += 1
    return start, end, words


def test_windows_grow_as_the_specification_tells_it() -> None:
    rng = random.Random(0)
    for _ in range(300):
        starts = sorted(round(rng.uniform(0, 60), 1) for _ in range(rng.randint(1, 9)))
        # Captions of speech recognition overlap.
        ends = [round(start + rng.uniform(0, 8), 1) for start in starts]
        index, least = rng.randrange(len(starts)), rng.choice([0.0, 3.0, 10.0, 100.0])
        window = grown(starts, ends, index, min_time=least)
        words = " ".join(str(row) for row in window.told("reference"))
        expected = described({"start": starts, "end": ends}, index, least)
        assert (window.start, window.end, words) == expected


def test_previous_words_stand_behind_in_reference_and_in_order_in_robust() -> None:
    window = grown([0.0, 5.0, 10.0], [4.0, 9.0, 14.0], 1, min_time=12.0)
    assert window.told("reference") == (1, 0, 2)
    assert window.told("robust") == (0, 1, 2)


def test_a_window_keeps_to_a_lone_caption_and_stops_when_all_are_in() -> None:
    assert grown([3.0], [4.0], 0, min_time=10.0) == Clip(3.0, 4.0, (0,))
    assert grown([0.0, 2.0], [1.0, 3.0], 1, min_time=99.0) == Clip(0.0, 3.0, (1, 0))
    assert grown([0.0, 2.0], [1.0, 13.0], 1, min_time=10.0) == Clip(2.0, 13.0, (1,))


def test_features_are_cut_to_the_row_in_which_the_window_ends() -> None:
    window = Clip(2.5, 4.0, (0,))
    for mode in ("reference", "robust"):
        assert feature_slice(window, rate=1.0, mode=mode) == slice(2, 5)
        assert feature_slice(window, rate=1.5, mode=mode) == slice(3, 7)


def test_a_start_before_the_video_is_mended_in_robust_only() -> None:
    window = Clip(-3.0, 2.0, (0,))
    assert feature_slice(window, rate=1.0, mode="reference") == slice(-3, 3)
    assert feature_slice(window, rate=1.0, mode="robust") == slice(0, 3)


def test_spectrogram_frames_are_those_that_librosa_gives() -> None:
    times = np.concatenate([np.linspace(0, 0.05, 23), np.random.default_rng(0).uniform(0, 900, 99)])
    expected = librosa_core.time_to_frames(times, sr=16000, hop_length=160, n_fft=400)
    assert [frame_at(float(time)) for time in times] == expected.tolist()


def test_sound_from_the_first_12_5_ms_on_is_lost_in_reference_and_kept_in_robust() -> None:
    mel = np.zeros((40, 1500))
    for start, lost in ((0.0, True), (0.0124, True), (0.0126, False), (3.0, False)):
        window = Clip(start, 10.0, (0,))
        reference = mel[:, sound_slice(window, mode="reference")].shape[1]
        robust = mel[:, sound_slice(window, mode="robust")].shape[1]
        assert (reference == 0) is lost
        assert robust == frame_at(10.0) - max(0, frame_at(start)) > 0
