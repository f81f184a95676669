"""What is in a dataset, told from values that are known beforehand."""

import numpy as np
import pytest
from PIL import Image

from continual_mm.data import portrait
from continual_mm.data.dataset import Dataset
from continual_mm.data.inspection import inspect

SPLIT = [0] * 6 + [1] * 2 + [2] * 4


def dataset(**columns: object) -> Dataset:
    dice = np.random.default_rng(0)
    video = dice.standard_normal((12, 3, 2)).astype(np.float32)
    sound = dice.standard_normal((12, 4)).astype(np.float32)
    given = {"video": video, "audio": sound, **columns}
    return Dataset.from_arrays(given, split=SPLIT, standardise=False)


def test_sizes_are_those_of_the_values() -> None:
    video = np.zeros((12, 2, 2), dtype=np.float32)
    video[:, 0] = (3.0, 4.0)
    found = Dataset.from_arrays(
        {"video": video, "audio": np.full((12, 1), -2.0)},
        split=SPLIT,
        lengths={"video": [1] * 11 + [2]},
        present={"audio": [True] * 10 + [False, True]},
        standardise=False,
    )
    seen, heard = inspect(found).modalities
    assert (seen.smallest, seen.largest) == (0.0, 4.0)
    assert seen.rms == pytest.approx(np.sqrt(25 * 12 / 26))
    assert (seen.norm, seen.lengths, seen.present) == (5.0, (1, 1, 2), (6, 2, 4))
    assert (heard.rms, heard.norm, heard.lengths, heard.present) == (2.0, 2.0, None, (6, 2, 3))
    assert inspect(found).complete == 11


def test_a_modality_a_thousand_times_larger_than_another_is_told() -> None:
    same = inspect(dataset())
    assert same.remarks == ()
    loud = 1000 * np.random.default_rng(1).standard_normal((12, 4))
    (remark,) = inspect(dataset(audio=loud)).remarks
    assert remark.startswith("values of audio are ")
    assert "keep standardise = true" in remark


def test_what_is_there_twice_is_counted_and_what_leaks_is_told() -> None:
    values = np.arange(24.0).reshape(12, 2)
    values[3] = values[2]  # Two training items.
    values[9] = values[4]  # A test item like a training item.
    values[11] = values[7]  # A test item like a validation item.
    found = inspect(dataset(audio=values))
    (heard,) = (one for one in found.modalities if one.modality.name == "audio")
    assert (heard.repeated, heard.leaked) == (6, 1)
    assert "1 validation or test items have the audio of a training item" in found.remarks


def test_constant_features_and_empty_items_are_told() -> None:
    values = np.random.default_rng(2).standard_normal((12, 4))
    values[:, 1] = 0.0
    values[5] = 0.0
    found = inspect(dataset(audio=values))
    assert "1 of 4 features of audio never change" in found.remarks
    assert any(one.startswith("1 items have nothing but zeros as audio") for one in found.remarks)


def test_a_group_in_two_splits_is_told_unless_there_is_but_one() -> None:
    values = {"a": np.arange(12.0)[:, None], "b": np.arange(12.0)[:, None]}
    for group, straddling in ([0] * 12, 1), ([0, 1] * 6, 2), (SPLIT, 0):
        found = inspect(Dataset.from_arrays(values, split=SPLIT, group=group, standardise=False))
        assert (found.groups, found.straddling) == (len(set(group)), straddling)
        told = [one for one in found.remarks if "more than one split" in one]
        assert len(told) == (straddling == 2)


def test_of_a_large_dataset_every_split_is_looked_at() -> None:
    values = {"a": np.arange(1200.0)[:, None], "b": np.arange(1200.0)[:, None]}
    found = inspect(
        Dataset.from_arrays(values, split=np.repeat(SPLIT, 100), standardise=False), most=60
    )
    assert found.looked_at == 60
    one, _ = found.modalities
    assert one.present == (600, 200, 400)
    assert (one.smallest, one.largest) == (0.0, 1199.0)


def test_the_picture_has_a_row_for_each_item(tmp_path) -> None:
    shown = dataset(lips=np.arange(12 * 18.0).reshape(12, 3, 6))
    for items, rows in (1, 1), (3, 3), (9, 4):
        portrait.draw(shown, tmp_path / "items.png", items=items)
        with Image.open(tmp_path / "items.png") as picture:
            assert picture.height == pytest.approx(120 * (1.7 * rows + 0.5), abs=2)
