"""A small sound pack, as arrays and as a file, with changes."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def columns():
    """(changes) -> a pack of six items; a column changed to None is left out."""

    def changed(**changes):
        rng = np.random.default_rng(0)
        sound = {
            "video": rng.normal(size=(6, 4, 3)).astype(np.float32),
            "video_kind": "spectrogram",
            "video_length": np.array([4, 3, 2, 1, 4, 4]),
            "text": rng.normal(size=(6, 5)).astype(np.float16),
            "text_present": np.array([True, True, False, True, True, True]),
            "ids": np.array(["ann", "bob", "cat", "dan", "eve", "fay"]),
            "split": np.array([0, 0, 0, 0, 1, 2]),
            "label": np.arange(6),
            "text_raw": np.array(["a word"] * 6),
        }
        return {name: value for name, value in {**sound, **changes}.items() if value is not None}

    return changed


@pytest.fixture
def saved(tmp_path, columns):
    """(changes) -> the file of such a pack."""

    def save(**changes):
        np.savez(tmp_path / "mine.npz", **columns(**changes))
        return tmp_path / "mine.npz"

    return save
