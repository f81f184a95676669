"""What is in a dataset, told from values that are known beforehand."""

import numpy as np
import pytest

from continual_mm.data.dataset import Dataset
from continual_mm.data.inspection import inspect
from continual_mm.data.store.reader import read_store
from continual_mm.data.store.writer import write_store
from continual_mm.modality import Kind, Modality

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


def test_a_modality_that_few_items_have_is_looked_at_all_the_same() -> None:
    values, has = np.arange(1200.0)[:, None], np.zeros(1200, dtype=bool)
    has[[7, 613]] = True
    found = Dataset.from_arrays(
        {"common": values, "rare": values},
        split=np.repeat(SPLIT, 100),
        present={"rare": has},
        standardise=False,
    )
    _, rare = inspect(found, most=60).modalities
    assert (rare.smallest, rare.largest, rare.present) == (7.0, 613.0, (1, 1, 0))
    assert "no test item has rare" in inspect(found).remarks
    none = Dataset.from_arrays(
        {"common": values[:3], "rare": values[:3]},
        split=[2] * 3,
        present={"rare": [False] * 3},
        standardise=False,
        splits=["test"],
    )
    assert "no test item has rare" in inspect(none).remarks


def test_values_that_are_not_finite_are_told_and_count_for_nothing(tmp_path) -> None:
    items = [{"ids": str(k), "split": k, "touch": np.full(50_000, k + 1.0)} for k in range(3)]
    layout = (Modality("touch", Kind.VECTOR, (50_000,)),)
    write_store(items, tmp_path / "store", layout=layout)
    shard = tmp_path / "store" / "items" / "data-00000.arrow"
    content = bytearray(shard.read_bytes())
    middle = len(content) // 4 * 2
    content[middle : middle + 2] = np.float16(np.nan).tobytes()
    shard.write_bytes(content)
    found = inspect(read_store(tmp_path / "store", standardise=False))
    (touch,) = found.modalities
    assert (touch.broken, touch.smallest, touch.largest) == (1, 1.0, 3.0)
    assert any("touch that are not finite" in one for one in found.remarks)
