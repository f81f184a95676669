"""Clip features: the largest value over time, halves of norm 1."""

import numpy as np
import torch
from torch.nn.functional import interpolate, normalize

from continual_mm.preparation.formats.features import halves, largest, steps, unit


def features(rows: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, size)).astype(np.float32)


def test_a_whole_clip_has_norm_root_two_and_each_half_norm_one() -> None:
    first, second = features(5, 7), features(8, 3, seed=1)
    clip = halves(largest(first), largest(second), sizes=(7, 3), mode="robust")
    assert clip is not None
    assert clip.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(clip), np.sqrt(2), rtol=1e-6)
    expected = torch.cat(
        [normalize(torch.tensor(half).max(0).values, dim=0) for half in (first, second)]
    )
    np.testing.assert_allclose(clip, expected.numpy(), rtol=1e-6)


def test_half_precision_features_are_read_as_well() -> None:
    first = features(5, 7)
    halved = largest(first.astype(np.float16))
    assert halved is not None
    assert halved.dtype == np.float32
    np.testing.assert_allclose(halved, first.max(0), atol=2e-3)


def test_a_missing_half_is_zeros_and_a_missing_clip_is_missing_in_robust_only() -> None:
    none = largest(features(0, 7))
    assert none is None
    for mode in ("reference", "robust"):
        half = halves(none, np.ones(4, np.float32), sizes=(7, 4), mode=mode)
        assert half is not None
        assert half.tolist() == [0.0] * 7 + [0.5] * 4
    assert halves(None, None, sizes=(7, 4), mode="robust") is None
    nothing = halves(None, None, sizes=(7, 4), mode="reference")
    assert nothing is not None
    assert nothing.tolist() == [0.0] * 11


def test_zeros_have_no_direction_and_stay_zeros() -> None:
    assert unit(np.zeros(3, np.float32)).tolist() == [0.0, 0.0, 0.0]


def test_steps_are_matched_as_torch_interpolates() -> None:
    for rows, others in ((4, 6), (5, 3), (1, 2), (7, 7)):
        first, second = features(rows, 5), features(others, 3, seed=1)
        nearest = interpolate(torch.tensor(first).T[None], size=others)[0].T
        expected = torch.cat([normalize(nearest), normalize(torch.tensor(second))], 1)
        np.testing.assert_allclose(steps(first, second), expected.numpy(), rtol=1e-5)
