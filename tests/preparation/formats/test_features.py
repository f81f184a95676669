"""Features of clips, each half of norm 1, spectrograms, and paths below a folder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from continual_mm.preparation.formats.features import frames, inside, unit, unit_halves
from continual_mm.system.errors import InputError


def test_a_clip_has_norm_root_two_and_each_half_norm_one() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=7).astype(np.float32), rng.normal(size=3).astype(np.float16)
    clip = unit_halves(first, second)
    assert clip.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(clip), np.sqrt(2), rtol=1e-6)
    halves = [normalize(torch.from_numpy(half).float(), dim=0) for half in (first, second)]
    np.testing.assert_allclose(clip, torch.cat(halves).numpy(), rtol=1e-6)
    assert unit(np.zeros(3, np.float32)).tolist() == [0.0, 0.0, 0.0]


def test_reference_pads_with_0_db_and_cuts_behind_the_longest() -> None:
    quiet = np.full((4, 3), -80.0, np.float16)
    padded = frames(quiet, 5, mode="reference")
    assert padded is not None
    assert padded.shape == (5, 4)
    assert padded.dtype == np.float32
    assert (padded[:3] == -80).all()
    assert (padded[3:] == 0).all()
    long = np.arange(28.0).reshape(4, 7)
    cut = frames(long, 5, mode="reference")
    assert cut is not None
    assert cut.tolist() == long[:, :5].T.tolist()


def test_robust_keeps_the_frames_that_there_are() -> None:
    spectrogram = np.arange(12.0).reshape(4, 3)
    kept = frames(spectrogram, 5, mode="robust")
    assert kept is not None
    assert kept.tolist() == spectrogram.T.tolist()


@pytest.mark.parametrize("steps", [0, 7])
def test_no_frames_or_nothing_but_0_db_is_silence_in_robust_only(steps: int) -> None:
    """Decibels below a maximum of zero power are 0 everywhere, the loudest that there is."""
    silent = np.zeros((3, steps), np.float32)
    assert frames(silent, 5, mode="robust") is None
    padded = frames(silent, 5, mode="reference")
    assert padded is not None
    assert padded.tolist() == np.zeros((5, 3)).tolist()


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../outside", "a/../../outside", "..", "", "a\\..\\b", "C:/x", "a\0b"]
)
def test_no_path_leads_out_of_the_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(InputError, match="does not name a file below it"):
        inside(tmp_path, path)


def test_no_link_leads_out_of_the_folder(tmp_path: Path) -> None:
    folder, outside = tmp_path / "in", tmp_path / "out"
    (folder / "real").mkdir(parents=True)
    outside.mkdir()
    (folder / "linked").symlink_to(outside)
    (folder / "near").symlink_to(folder / "real")
    with pytest.raises(InputError, match="leads out of it"):
        inside(folder, "linked/video_2d.npz")
    assert inside(folder, "near/video_2d.npz") == folder / "near" / "video_2d.npz"
