"""Spectrograms of clips: filled up with the loudest value as published, or left as they are."""

import numpy as np

from continual_mm.preparation.formats.features import frames


def test_reference_fills_up_with_0_db_and_cuts_behind_the_longest() -> None:
    quiet = np.full((4, 3), -80.0, np.float16)
    filled = frames(quiet, 5, mode="reference")
    assert filled is not None
    assert filled.shape == (5, 4)
    assert filled.dtype == np.float32
    assert (filled[:3] == -80).all()
    assert (filled[3:] == 0).all()
    cut = frames(np.arange(28.0).reshape(4, 7), 5, mode="reference")
    assert cut is not None
    assert cut.tolist() == np.arange(28.0).reshape(4, 7)[:, :5].T.tolist()


def test_robust_keeps_the_frames_that_there_are() -> None:
    sound = np.arange(12.0).reshape(4, 3)
    kept = frames(sound, 5, mode="robust")
    assert kept is not None
    assert kept.tolist() == sound.T.tolist()
    assert frames(sound[:, :0], 5, mode="robust") is None
    nothing = frames(sound[:, :0], 5, mode="reference")
    assert nothing is not None
    assert not nothing.any()
    assert nothing.shape == (5, 4)


def test_nothing_but_0_db_is_silence_in_robust_and_kept_in_reference() -> None:
    """Decibels below a maximum of zero power are 0 everywhere, the loudest that there is."""
    silent = np.zeros((3, 7), np.float32)
    assert frames(silent, 5, mode="robust") is None
    assert frames(silent, 5, mode="reference").shape == (5, 3)
    silent[1, 2] = -1
    assert frames(silent, 5, mode="robust").shape == (5, 3)
