"""The pairs that a filter judges, and what it is given of them."""

import numpy as np
import pytest
import torch

from continual_mm.data.dataset import Dataset
from continual_mm.preparation.filtering.pool import Pool
from continual_mm.preparation.filtering.scorers import ScorerSettings
from continual_mm.system.errors import InputError


@pytest.fixture
def pool():
    rng = np.random.default_rng(0)
    dataset = Dataset.from_arrays(
        {"text": rng.standard_normal((12, 4, 3)), "image": rng.standard_normal((12, 5))},
        split=np.repeat([0, 1, 2], [8, 2, 2]),
        present={"text": np.arange(12) != 1, "image": np.arange(12) != 2},
        standardise=False,
    )
    return Pool.of(dataset, ("text", "image"), torch.device("cpu"))


def test_pairs_are_training_items_with_both_modalities(pool):
    assert pool.rows.tolist() == [0, 3, 4, 5, 6, 7]
    assert pool.ids.tolist() == ["0", "3", "4", "5", "6", "7"]


def test_batches_show_every_pair_once_before_one_comes_again(pool):
    settings = ScorerSettings(batch_size=3, feature_dropout=0.0)
    found, images = pool.batches(settings, "test"), pool.dataset.columns["image"].values
    for _ in range(5):
        seen = torch.cat([next(found)[0][1][0] for _ in range(2)]).numpy()
        rows = [int(np.flatnonzero((images == one).all(1))[0]) for one in seen]
        assert sorted(rows) == pool.rows.tolist()


def test_partners_stay_side_by_side(pool):
    batch, right = next(pool.batches(ScorerSettings(feature_dropout=0.0), "a"))
    (texts, lengths), (images, none) = batch
    assert right is None
    assert lengths.tolist() == [4] * 6
    assert none is None
    columns = pool.dataset.columns
    for text, image in zip(texts.numpy(), images.numpy(), strict=True):
        row = int(np.flatnonzero((columns["image"].values == image).all(1))[0])
        assert np.array_equal(columns["text"].values[row], text)


def test_features_of_a_damaged_store_that_are_not_finite_are_refused_by_name(pool):
    pool.dataset.columns["image"].values[5, 2] = np.inf
    with pytest.raises(InputError, match="column 'image': features are not finite in items '5'"):
        next(pool.batches(ScorerSettings(), "test"))


def test_captions_of_an_image_are_told_whatever_dropout_leaves_of_their_features(pool):
    images = pool.dataset.columns["image"].values
    images[5] = images[3]
    batch, right = next(pool.batches(ScorerSettings(feature_dropout=0.5), "test"))
    assert right.sum() == 6 + 2
    (one, other), _ = (right & ~torch.eye(6, dtype=torch.bool)).nonzero().tolist()
    assert not torch.equal(batch[1][0][one], batch[1][0][other])
