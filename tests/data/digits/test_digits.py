"""The small real dataset of four modalities."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from continual_mm.data import registry
from continual_mm.data.cache import CACHE_VARIABLE
from continual_mm.data.dataset import Split


@pytest.fixture
def digits(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    return registry.load("digits", standardise=False)


def test_the_four_modalities_of_an_item_laid_together_are_a_digit_of_scikit_learn(digits):
    known = load_digits()
    for item in (0, 1000, 1796):
        nw, ne, sw, se = (
            digits.columns[name].values[item].reshape(4, 4) for name in ("nw", "ne", "sw", "se")
        )
        upper, lower = np.stack([nw, ne], axis=-1), np.stack([sw, se], axis=-1)
        picture = np.stack([upper.reshape(4, 8), lower.reshape(4, 8)], axis=1).reshape(8, 8)
        of = int(digits.ids[item].removeprefix("digit"))
        assert (picture == known.images[of]).all()
        assert digits.label[item] == known.target[of]
        assert (digits.picture[item] == 15 * known.images[of]).all()


def test_every_digit_is_there_once_and_the_card_knew_how_many(digits):
    assert len(set(digits.ids)) == len(digits) == 1797
    assert digits.card == registry.card("digits")
    assert tuple(len(digits.rows_of(split)) for split in Split) == digits.card.items


def test_every_digit_occurs_in_every_split(digits):
    for split in Split:
        counts = np.bincount(digits.label[digits.rows_of(split)], minlength=10)
        assert counts.min() > 0.05 * counts.sum()


def test_with_names_ten_more_items_have_the_name_of_a_class_alone(digits):
    named = registry.load("named_digits", standardise=False)
    assert named.card == registry.card("named_digits")
    assert tuple(len(named.rows_of(split)) for split in Split) == named.card.items
    assert (named.label[:1797] == digits.label).all()
    assert (named.columns["nw"].values[:1797] == digits.columns["nw"].values).all()
    assert (named.columns["name"].values.argmax(1) == named.label).all()
    assert (named.columns["name"].values.sum(1) == 1).all()
    alone = ~named.columns["se"].present
    assert named.label[alone].tolist() == list(range(10))
    assert (named.split[alone] == Split.TEST).all()
    assert named.card.having("name", "nw") == digits.card.items
