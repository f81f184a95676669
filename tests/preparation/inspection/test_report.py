"""What is in a dataset, told from values that are known beforehand."""

import numpy as np
import pytest

from continual_mm.data.dataset import Dataset
from continual_mm.data.store.reader import read_store
from continual_mm.data.store.writer import write_store
from continual_mm.definitions.modality import Kind, Modality
from continual_mm.preparation.inspection.report import inspect
from continual_mm.system.errors import InputError

SPLIT = [0] * 6 + [1] * 2 + [2] * 4


def dataset(**columns: object) -> Dataset:
    rng = np.random.default_rng(0)
    video = rng.standard_normal((12, 3, 2)).astype(np.float32)
    sound = rng.standard_normal((12, 4)).astype(np.float32)
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
    assert (seen.sizes.smallest, seen.sizes.largest) == (0.0, 4.0)
    assert seen.sizes.rms == pytest.approx(np.sqrt(25 * 12 / 26))
    assert (seen.sizes.norm, seen.lengths, seen.present) == (5.0, (1, 1, 2), (6, 2, 4))
    assert seen.sizes.usual == pytest.approx(5 / np.sqrt(2))
    assert (heard.sizes.rms, heard.sizes.norm) == (2.0, 2.0)
    assert (heard.lengths, heard.present) == (None, (6, 2, 3))
    assert inspect(found).complete == 11


def test_a_modality_a_thousand_times_larger_than_another_is_told() -> None:
    same = inspect(dataset())
    assert same.remarks == ()
    loud = 1000 * np.random.default_rng(1).standard_normal((12, 4))
    (remark,) = inspect(dataset(audio=loud)).remarks
    assert remark.startswith("values of audio are ")
    assert "keep standardise = true" in remark


def test_one_value_out_of_range_is_told_as_one_and_not_as_a_modality_that_is_larger() -> None:
    values = np.random.default_rng(1).standard_normal((12, 4))
    values[5, 2] = 1e6
    (remark,) = inspect(dataset(audio=values)).remarks
    assert remark.startswith("the largest value of audio, 1e+06 in item '5', is ")
    assert "standardise" not in remark


def test_a_split_of_another_magnitude_is_told_since_standardising_cannot_mend_it() -> None:
    values = np.ones((12, 4)) + np.arange(12)[:, None] / 100
    values[8:] *= 1000
    (remark, *_) = (one for one in inspect(dataset(audio=values)).remarks if "norm" in one)
    assert remark.startswith("the norm of audio in test is 1,0")
    values[8:] /= 1e6
    (remark, *_) = (one for one in inspect(dataset(audio=values)).remarks if "norm" in one)
    assert remark.startswith("the norm of audio in test is 1/9")


def test_a_few_items_of_another_magnitude_are_told() -> None:
    values = np.random.default_rng(1).standard_normal((12, 4))
    values[::4] *= 1e4
    loud, faint = inspect(dataset(audio=values)), inspect(dataset(audio=-values[::-1] / 1e4))
    assert "3 items have more than 100 times the usual norm of audio" in loud.remarks[0]
    values[:] = np.where(np.arange(12)[:, None] % 4, values, 1e-3 * np.sign(values))
    faint = inspect(dataset(audio=values))
    assert "3 items have less than a 100th of the usual norm of audio" in faint.remarks[0]


def test_what_cannot_be_standardised_here_is_not_said_to_have_to_be() -> None:
    values = np.random.default_rng(1).standard_normal((3, 4))
    alone = Dataset.from_arrays(
        {"a": values, "b": 1000 * values}, split=[2] * 3, standardise=False, splits=["test"]
    )
    (remark,) = (one for one in inspect(alone).remarks if "times as large" in one)
    assert "standardise" not in remark


def test_what_is_there_twice_is_counted_and_what_leaks_is_told() -> None:
    values = np.arange(24.0).reshape(12, 2)
    values[3] = values[2]  # Two training items.
    values[9] = values[4]  # A test item like a training item.
    values[11] = values[7]  # A test item like a validation item.
    found = inspect(dataset(audio=values))
    (heard,) = (one for one in found.modalities if one.modality.name == "audio")
    assert (heard.repeats.repeated, heard.repeats.leaked, heard.repeats.crossed) == (6, 1, 1)
    assert "1 validation or test item has the audio of a training item" in found.remarks
    assert "1 test item has the audio of a validation item" in found.remarks
    assert found.whole.repeated == 0


def test_items_that_are_the_same_in_every_modality_are_told_as_such_and_not_once_for_each() -> None:
    video, audio = dataset().columns["video"].values, dataset().columns["audio"].values
    video[9], audio[9] = video[4], audio[4]
    assert inspect(dataset(video=video, audio=audio)).remarks == (
        "1 validation or test item is the same as a training item in every modality",
        "2 items are there more than once, the same in every modality",
    )


@pytest.mark.parametrize("compared", [1.0, 1000 * 8 / 1e9])
def test_of_what_is_too_large_only_some_is_compared_and_that_is_said(compared: float) -> None:
    values = 1 + np.arange(4000.0) % 2000
    found = inspect(
        Dataset.from_arrays(
            {"a": values[:, None], "b": values[:, None]},
            split=np.repeat([0, 1, 2], [2000, 100, 1900]),
            standardise=False,
        ),
        gigabytes=compared,
    )
    if compared == 1.0:
        assert found.whole.leaked == 2000
        said = "2,000 validation or test items are the same as a training item in every modality"
        assert said in found.remarks
    else:
        assert found.compared == pytest.approx(1000, abs=2)
        assert f"repeats were looked for among {found.compared:,} of 4,000 items" in found.remarks
        told = [one for one in found.remarks if "the same" in one]
        assert all(one.startswith("at least ") for one in told)


def test_repeated_captions_want_other_positives_than_pairs() -> None:
    def said(text: list[str], label: list[int] | None = None) -> str:
        found = inspect(
            Dataset.from_arrays(
                {"a": np.eye(12)}, split=SPLIT, text=text, label=label, standardise=False
            )
        )
        return "\n".join(found.remarks)

    names = ["cat", "dog"] * 6
    assert 'the names of 2 classes, one for each label: set positives = "label"' in said(
        names, [0, 1] * 6
    )
    assert '12 items have the caption of another item: set positives = "duplicates"' in said(names)
    assert '"duplicates"' in said(names, [0, 1, 2] * 4)
    assert said([str(k) for k in range(12)]) == ""
    assert said([""] * 12) == ""
    assert said(["it"] * 12) == "all 12 items have the same caption"


def test_what_is_the_same_for_many_items_is_a_class_and_no_leak() -> None:
    ones = np.eye(2)[np.arange(120) % 2]
    values = {"a": np.arange(120.0)[:, None], "word": ones}
    found = inspect(Dataset.from_arrays(values, split=SPLIT * 10, standardise=False))
    (remark,) = (one for one in found.remarks if "word" in one)
    assert remark.startswith("word has only 2 different values in 120 items")
    values["word"] = np.ones((120, 2))
    found = inspect(Dataset.from_arrays(values, split=SPLIT * 10, standardise=False))
    assert "all 120 items have the same word" in found.remarks


def test_constant_features_and_empty_items_are_told() -> None:
    values = np.random.default_rng(2).standard_normal((12, 4))
    values[:, 1] = 0.0
    values[[5, 9]] = 0.0
    found = inspect(dataset(audio=values))
    assert found.remarks == (
        "1 of 4 features of audio never changes",
        "2 items have nothing but zeros as audio: is that a missing audio?",
    )


def test_features_of_a_single_item_are_not_said_to_never_change() -> None:
    one = Dataset.from_arrays({"a": [[1.0, 2.0]]}, split=[2], standardise=False, splits=["test"])
    assert not any("change" in remark for remark in inspect(one).remarks)


def test_a_group_in_two_splits_is_told() -> None:
    values = {"a": np.arange(12.0)[:, None], "b": np.arange(12.0)[:, None]}
    for group, straddling, told in (
        ([0] * 12, 1, "the only group has items in more than one split"),
        ([0] + [k + 1 for k in SPLIT[1:-1]] + [0], 1, "1 group has items in more than one split"),
        ([0, 1] * 6, 2, "2 groups have items in more than one split: scores may be too good"),
        (SPLIT, 0, None),
    ):
        found = inspect(Dataset.from_arrays(values, split=SPLIT, group=group, standardise=False))
        assert (found.groups, found.straddling) == (len(set(group)), straddling)
        said = [one for one in found.remarks if "split" in one]
        assert len(said) == (told is not None)
        assert all(one.startswith(str(told)) for one in said)


def test_without_items_there_is_nothing_to_inspect() -> None:
    with pytest.raises(InputError, match="nothing: has no items"):
        Dataset.from_arrays({"a": np.empty((0, 4))}, name="nothing", standardise=False, splits=())


def test_of_a_large_dataset_every_split_is_looked_at() -> None:
    values = {"a": np.arange(1200.0)[:, None], "b": np.arange(1200.0)[:, None]}
    found = inspect(
        Dataset.from_arrays(values, split=np.repeat(SPLIT, 100), standardise=False), most=60
    )
    assert found.looked_at == 60
    one, _ = found.modalities
    assert one.present == (600, 200, 400)
    assert (one.sizes.smallest, one.sizes.largest) == (0.0, 1199.0)


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
    assert (rare.sizes.smallest, rare.sizes.largest) == (7.0, 613.0)
    assert rare.present == (1, 1, 0)
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
    assert (touch.sizes.broken, touch.sizes.smallest, touch.sizes.largest) == (1, 1.0, 3.0)
    assert any("1 item has values of touch that are not finite" in one for one in found.remarks)
