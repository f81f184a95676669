"""Features of clips, each half of norm 1, spectrograms, and paths below a folder."""

import numpy as np
import pytest

from continual_mm.preparation.formats.features import frames, inside, unit_halves
from continual_mm.system.errors import InputError


def test_a_clip_has_norm_root_two_and_each_half_norm_one_unless_it_is_zero():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=7).astype(np.float32), rng.normal(size=3).astype(np.float16)
    clip = unit_halves(first, second)
    assert clip.dtype == np.float32
    np.testing.assert_allclose([np.linalg.norm(half) for half in (clip[:7], clip[7:])], 1, 1e-6)
    assert unit_halves(first * 0, second)[:7].tolist() == [0] * 7


@pytest.mark.parametrize("steps", [0, 7])
def test_no_frames_or_nothing_but_0_db_is_silence_in_robust_only(steps):
    """Decibels below a maximum of zero power are 0 everywhere, the loudest that there is."""
    silent = np.zeros((3, steps), np.float32)
    assert frames(silent, 5, mode="robust") is None
    assert frames(silent, 5, mode="reference").tolist() == np.zeros((5, 3)).tolist()


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../outside", "a/../../outside", "..", "", "a\\..\\b", "C:/x", "a\0b"]
)
def test_no_path_leads_out_of_the_folder(tmp_path, path):
    with pytest.raises(InputError, match="does not name a file below it"):
        inside(tmp_path, path)


def test_no_link_leads_out_of_the_folder(tmp_path):
    folder, outside = tmp_path / "in", tmp_path / "out"
    (folder / "real").mkdir(parents=True)
    outside.mkdir()
    (folder / "linked").symlink_to(outside)
    (folder / "near").symlink_to(folder / "real")
    with pytest.raises(InputError, match="leads out of it"):
        inside(folder, "linked/video_2d.npz")
    assert inside(folder, "near/video_2d.npz") == folder / "near" / "video_2d.npz"
