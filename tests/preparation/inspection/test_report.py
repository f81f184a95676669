"""What is in a dataset, from values that are known beforehand."""

import numpy as np
import pytest

from continual_mm.data.dataset import Dataset
from continual_mm.data.store.reader import read_store
from continual_mm.data.store.writer import write_store
from continual_mm.definitions.modality import Kind, Modality
from continual_mm.preparation.inspection.report import Inspection, inspect

SPLIT = [0] * 6 + [1] * 2 + [2] * 4


def noise(seed=1, rows=12):
    return np.random.default_rng(seed).standard_normal((rows, 4))


def plain(arrays, split=SPLIT, **others):
    return Dataset.from_arrays(arrays, split=split, standardise=False, **others)


def dataset(**columns):
    """Twelve items without anything to warn of, but for the columns that are given."""
    video = noise(0, 18).reshape(12, 3, 2)
    arrays = {"video": video, "audio": noise(2), **columns}
    return plain(arrays, kinds={"video": "frames"})


def test_sizes_are_those_of_the_values():
    video = np.zeros((12, 2, 2), dtype=np.float32)
    video[:, 0] = (3.0, 4.0)
    arrays = {"video": video, "audio": np.full((12, 1), -2.0)}
    present = {"audio": [True] * 10 + [False, True]}
    found = inspect(plain(arrays, lengths={"video": [1] * 11 + [2]}, present=present))
    video, audio = found.modalities
    assert (video.sizes.smallest, video.sizes.largest) == (0.0, 4.0)
    assert video.sizes.rms == pytest.approx(np.sqrt(25 * 12 / 26))
    assert (video.sizes.norm, video.lengths, video.present) == (5.0, (1, 1, 2), (6, 2, 4))
    assert video.sizes.usual == pytest.approx(5 / np.sqrt(2))
    assert (audio.sizes.rms, audio.sizes.norm) == (2.0, 2.0)
    assert (audio.lengths, audio.present) == (None, (6, 2, 3))
    assert found.complete == 11


def outlier():
    return np.where(np.arange(48).reshape(12, 4) == 22, 1e6, noise())


def other_split(factor):
    values = np.ones((12, 4)) + np.arange(12)[:, None] / 100
    return values * np.where(np.arange(12) < 8, 1, factor)[:, None]


def other_items(factor):
    values = np.sign(noise()) + noise() / 100
    return values * np.where(np.arange(12) % 4, 1, factor)[:, None]


@pytest.mark.parametrize(
    ("audio", "warning"),
    [
        (1000 * noise(), "values of audio are 9"),
        (outlier(), "the largest value of audio, 1e+06 in item '5', is "),
        (other_split(1e3), "the norm of audio in test is 1,0"),
        (other_split(1e-3), "the norm of audio in test is 1/9"),
        (other_items(1e4), "3 items have more than 100 times the usual norm of audio"),
        (other_items(1e-4), "3 items have less than a 100th of the usual norm of audio"),
    ],
)
def test_sizes_that_differ_by_a_hundred_are_warned_of_once(audio, warning):
    (found,) = inspect(dataset(audio=audio)).remarks
    assert found.startswith(warning)
    assert ("keep standardise = true" in found) is found.startswith("values")
    assert inspect(dataset()).remarks == ()


def test_duplicates_are_counted_and_leaks_between_splits_are_warned_of():
    values = np.arange(24.0).reshape(12, 2)
    values[3] = values[2]  # Two training items.
    values[9] = values[4]  # A test item like a training item.
    values[11] = values[7]  # A test item like a validation item.
    found = inspect(dataset(audio=values))
    own = found.modalities[1].repeats
    assert (own.repeated, own.leaked, own.crossed) == (6, 1, 1)
    assert "1 validation or test item has the audio of a training item" in found.remarks
    assert "1 test item has the audio of a validation item" in found.remarks
    assert found.whole.repeated == 0


def test_duplicates_in_every_modality_are_not_repeated_for_each():
    video, audio = (dataset().columns[name].values for name in ("video", "audio"))
    video[9], audio[9] = video[4], audio[4]
    assert inspect(dataset(video=video, audio=audio)).remarks == (
        "1 validation or test item is the same as a training item in every modality",
        "2 items are there more than once, the same in every modality",
    )


@pytest.mark.parametrize("gigabytes", [1.0, 1000 * 8 / 1e9])
def test_of_a_large_dataset_some_items_are_compared_which_is_said(gigabytes):
    values = (1 + np.arange(4000.0) % 2000)[:, None]
    large = plain({"a": values, "b": values}, np.repeat([0, 1, 2], [2000, 100, 1900]))
    found = inspect(large, gigabytes=gigabytes)
    same = [one for one in found.remarks if "the same" in one]
    if gigabytes == 1.0:
        assert found.whole.leaked == 2000
        assert same[0].startswith("2,000 validation or test items are the same as a training item")
    else:
        assert found.compared == pytest.approx(1000, abs=2)
        assert f"repeats were looked for among {found.compared:,} of 4,000 items" in found.remarks
        assert all(one.startswith("at least ") for one in same)


@pytest.mark.parametrize(
    ("text", "label", "warning"),
    [
        (["cat", "dog"] * 6, [0, 1] * 6, 'of 2 classes, one for each label: set positives = "la'),
        (["cat", "dog"] * 6, None, "12 items have the caption of another item: what is the same"),
        (["cat", "dog"] * 6, [0, 1, 2] * 4, "is asked and listed once, and all items that have it"),
        (["it"] * 12, None, "all 12 items have the same caption"),
        ([str(k) for k in range(12)], None, None),
        ([""] * 12, None, None),
    ],
)
def test_repeated_captions_are_told_with_what_becomes_of_them(text, label, warning):
    found = inspect(plain({"a": np.eye(12)}, text=text, label=label)).remarks
    assert len(found) == (warning is not None)
    assert all(str(warning) in one for one in found)


@pytest.mark.parametrize(
    ("words", "warning"),
    [
        (np.eye(2)[np.arange(120) % 2], "word has only 2 different values in 120 items"),
        (np.ones((120, 2)), "all 120 items have the same word"),
    ],
)
def test_one_value_for_many_items_is_a_class_and_no_leak(words, warning):
    found = inspect(plain({"a": np.arange(120.0)[:, None], "word": words}, SPLIT * 10))
    (about,) = (one for one in found.remarks if "word" in one and "never" not in one)
    assert about.startswith(warning)


def test_constant_features_and_empty_items_are_warned_of():
    values = noise()
    values[:, 1] = 0.0
    values[[5, 9]] = 0.0
    assert inspect(dataset(audio=values)).remarks == (
        "1 of 4 features of audio never changes",
        "2 items have nothing but zeros as audio: is that a missing audio?",
    )
    single = plain({"a": [[1.0, 2.0]]}, [2], splits=["test"])
    assert not any("change" in one for one in inspect(single).remarks)


@pytest.mark.parametrize(
    ("kind", "lengths", "warned"),
    [
        ("tokens", None, True),
        ("tokens", [4, 5] * 6, False),  # sentences
        ("frames", None, False),
    ],
)
def test_rows_that_would_be_read_without_order_are_named_if_all_items_have_as_many(
    kind, lengths, warned
):
    image = noise(0, 45).reshape(12, 5, 3)
    given = {} if lengths is None else {"lengths": {"image": lengths}}
    remarks = inspect(plain({"image": image}, kinds={"image": kind}, **given)).remarks
    assert any('[tower.image] kind = "flat"' in one for one in remarks) is warned


@pytest.mark.parametrize(
    ("group", "straddling", "warning"),
    [
        ([0] * 12, 1, "the only group has items in more than one split"),
        ([0] + [k + 1 for k in SPLIT[1:-1]] + [0], 1, "1 group has items in more than one split"),
        ([0, 1] * 6, 2, "2 groups have items in more than one split: scores may be too good"),
        (SPLIT, 0, None),
    ],
)
def test_a_group_in_two_splits_is_warned_of(group, straddling, warning):
    values = np.arange(12.0)[:, None]
    found = inspect(plain({"a": values, "b": values}, group=group))
    assert (found.groups, found.straddling) == (len(set(group)), straddling)
    about = [one for one in found.remarks if "split" in one]
    assert len(about) == (warning is not None)
    assert all(one.startswith(str(warning)) for one in about)


def test_a_sample_of_a_large_dataset_has_items_of_every_split_and_modality():
    values, has = np.arange(1200.0)[:, None], np.zeros(1200, dtype=bool)
    has[[7, 613]] = True
    large = plain({"common": values, "rare": values}, np.repeat(SPLIT, 100), present={"rare": has})
    found: Inspection = inspect(large, most=60)
    common, rare = found.modalities
    assert (found.looked_at, common.present, rare.present) == (60, (600, 200, 400), (1, 1, 0))
    assert (common.sizes.smallest, common.sizes.largest) == (0.0, 1199.0)
    assert (rare.sizes.smallest, rare.sizes.largest) == (7.0, 613.0)
    assert "no test item has rare" in found.remarks


def test_values_that_are_not_finite_are_warned_of_and_not_measured(tmp_path):
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
