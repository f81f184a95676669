"""Records written as a store, and looked at with other libraries."""

import json
import re
import subprocess
import sys
import textwrap

import datasets
import numpy as np
import pytest
import torch

from continual_mm.data import registry
from continual_mm.data.pack import read_pack
from continual_mm.data.store.form import Layout, read_store_card
from continual_mm.data.store.pack_writer import write_pack_from
from continual_mm.data.store.reader import group_names, read_store, verify_store
from continual_mm.data.store.writer import write_store
from continual_mm.definitions.modality import Kind, Modality
from continual_mm.system.errors import InputError, Problem

LAYOUT: Layout = (
    Modality("touch", Kind.VECTOR, (3,)),
    Modality("speech", Kind.SPECTROGRAM, (0, 2)),
    Modality("frames", Kind.FRAMES, (0, 2, 2)),
)


WRITERS = (write_store, "store"), (write_pack_from, "pack.npz")


def record(number, **other):
    rng = np.random.default_rng(number)
    return {
        "ids": f"clip {number}",
        "split": 0 if number < 8 else number - 7,
        "touch": rng.normal(size=3),
        "speech": rng.normal(size=(1 + number % 4, 2)) if number % 5 else None,
        "frames": rng.normal(size=(1 + number % 2, 2, 2)),
        **other,
    }


def records():
    return [record(number) for number in range(10)]


def test_hugging_face_opens_what_was_written(tmp_path):
    given = [{**each, "text_raw": f"höre {each['ids']}"} for each in records()]
    write_store(iter(given), tmp_path / "store", layout=LAYOUT, shard_bytes=100)
    items = datasets.load_from_disk(str(tmp_path / "store" / "items"))
    assert len(list((tmp_path / "store" / "items").glob("*.arrow"))) > 2
    assert items["text_raw"] == [each["text_raw"] for each in given]
    assert items["split"] == [each["split"] for each in given]
    for row, each in zip(items, given, strict=True):
        assert row["touch"] == each["touch"].astype(np.float16).tolist()
        speech = each["speech"]
        flat = None if speech is None else speech.astype(np.float16).reshape(-1).tolist()
        assert row["speech"] == flat


def test_the_card_is_there_without_arrow(tmp_path):
    card = write_store(records(), tmp_path / "store", layout=LAYOUT, name="mine")
    assert card == read_store_card(tmp_path / "store")
    assert (card.name, card.items, card["speech"].shape) == ("mine", (8, 1, 1), (4, 2))
    code = f"""
    import sys
    import continual_mm
    from continual_mm.data import registry
    assert "read_store" in dir(continual_mm)
    continual_mm.Modality("sound", continual_mm.Kind.VECTOR, (3,))
    registry.card({str(tmp_path / "store")!r})
    sys.exit(bool({{"pyarrow", "torch", "datasets", "pandas"}} & sys.modules.keys()))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_the_fingerprint_is_the_content_however_it_is_divided(tmp_path):
    def fingerprint(name, given, shard_bytes):
        folder = tmp_path / name
        return write_store(given, folder, layout=LAYOUT, shard_bytes=shard_bytes).fingerprint

    whole = fingerprint("whole", records(), 10**6)
    assert fingerprint("parts", records(), 100) == whole
    changed = records()
    changed[9]["speech"][0, 0] += 1
    moved = [*records()[1:], records()[0]]
    assert len({whole, fingerprint("changed", changed, 100), fingerprint("moved", moved, 100)}) == 3


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        ({"ids": ""}, "column 'ids': is empty"),
        ({"ids": 3}, "column 'ids': is int, no text"),
        ({"ids": "a\0b"}, "NUL"),
        ({"split": 3}, "column 'split': no such split: 3"),
        ({"split": True}, "column 'split': True is no whole number"),
        ({"touch": np.zeros(4)}, r"column 'touch': has shape \(4,\); its items are \(3,\)"),
        ({"speech": np.zeros((2, 3))}, r"has shape \(2, 3\); its items are \(time, 2\)"),
        ({"speech": np.zeros((0, 2))}, "leave it out where there is none"),
        ({"touch": [1.0, [2.0]]}, "column 'touch': is no array"),
        ({"touch": np.array([1, 2, 3])}, "is int64; a modality holds floats"),
        ({"touch": np.array([1, np.nan, 3])}, "column 'touch': is not finite"),
        (
            {"touch": np.array([1.0, -7e4, 3])},
            '70000 is beyond float16; store it as float32: --dtype float32, or dtype="float32"',
        ),
        ({"smell": np.zeros(3)}, "column 'smell': is in no layout"),
    ],
)
def test_a_faulty_record_is_refused_with_its_name(tmp_path, other, problem):
    given = records()
    given[4] = record(4, **other)
    with pytest.raises(InputError, match=problem) as caught:
        write_store(given, tmp_path / "store", layout=LAYOUT)
    assert f"item {given[4]['ids']!r}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


SOME = {
    "label": [None, 7, 7, None, float("nan"), 0, None, None, None, 7],
    "group": [None, "v", "v", None, None, 3, None, None, None, "w"],
    "text_raw": [None, "one", "", None, None, " two ", None, None, None, None],
}


def test_what_only_some_items_have_is_written_and_read_back(tmp_path):
    cells = [dict(zip(SOME, row, strict=True)) for row in zip(*SOME.values(), strict=True)]
    given = [each | cell for each, cell in zip(records(), cells, strict=True)]
    fingerprints = []
    for write, name in WRITERS:
        write(given, tmp_path / name, layout=LAYOUT)
        dataset = registry.load(str(tmp_path / name), standardise=False)
        assert dataset.label.tolist() == [-1, 7, 7, -1, -1, 0, -1, -1, -1, 7]
        assert dataset.text[np.arange(10)].tolist() == ["", "one", "", "", "", " two ", *[""] * 4]
        group = dataset.group.tolist()
        assert group[1] == group[2]
        assert len(set(group)) == 9, "an item without a group is one by itself"
        assert dataset.card.groups == 7
        fingerprints.append(dataset.card.fingerprint)
    assert registry.load(str(tmp_path / "store")).card.fingerprint == fingerprints[0]
    verify_store(tmp_path / "store")
    items = datasets.load_from_disk(str(tmp_path / "store" / "items"))
    assert items["text_raw"][:3] == [None, "one", ""]
    assert items["label"][:2] == [None, 7]


def test_a_column_that_the_last_item_alone_has_is_there(tmp_path):
    given = [record(number) for number in range(9)] + [record(9, label=4)]
    write_store(given, tmp_path / "store", layout=LAYOUT, shard_bytes=100)
    assert read_store(tmp_path / "store").label.tolist() == [-1] * 9 + [4]
    verify_store(tmp_path / "store")


def test_a_column_that_no_item_has_changes_nothing(tmp_path):
    empty = [record(number, label=None, group=float("nan")) for number in range(10)]
    cards = [
        write_store(given, tmp_path / name, layout=LAYOUT, name="same")
        for name, given in (("with", empty), ("without", records()))
    ]
    assert cards[0] == cards[1]
    assert not cards[0].has_labels
    dataset = read_store(tmp_path / "with")
    assert (dataset.label, dataset.group, dataset.text) == (None, None, None)
    verify_store(tmp_path / "with")


def test_ids_that_occur_twice_are_refused(tmp_path):
    for write, name in WRITERS:
        with pytest.raises(InputError, match="ids occur more than once: 'clip 3', 'clip 4'"):
            write([*records(), record(4), record(3)], tmp_path / name, layout=LAYOUT)
        assert not (tmp_path / name).exists()


def test_what_no_item_has_cannot_be_learnt(tmp_path):
    never = [{**each, "speech": None} for each in records()]
    with pytest.raises(InputError, match="no item has the modality 'speech'"):
        write_store(never, tmp_path / "store", layout=LAYOUT)
    late = [{**each, "speech": each["speech"] if each["split"] else None} for each in records()]
    with pytest.raises(InputError, match="no training item has the modality 'speech'"):
        write_store(late, tmp_path / "store", layout=LAYOUT)
    with pytest.raises(InputError, match="has no items"):
        write_store([], tmp_path / "store", layout=LAYOUT)


@pytest.mark.parametrize(
    ("layout", "problem"),
    [
        ((), r"store: the layout is \(\); give a tuple of"),
        ((Modality("ids", Kind.VECTOR, (3,)),), "'ids' names no modality"),
        ((Modality("../up", Kind.VECTOR, (3,)),), "name"),
        ((Modality("a", Kind.VECTOR, (3, 2)),), "no vector"),
        ((Modality("a", Kind.SPECTROGRAM, (0, 2, 2)),), "no spectrogram"),
        ((Modality("a", Kind.VECTOR, (3,)),) * 2, "columns occur twice: a"),
        (LAYOUT[0], r"layout=...\): a Modality is no sequence of Modality or Words or Windows"),
        (("touch",), r"layout=...\): \('touch',\) is no sequence of Modality or Words or"),
    ],
)
def test_a_layout_that_means_nothing_is_refused(tmp_path, layout, problem):
    with pytest.raises(InputError, match=problem):
        write_store(records(), tmp_path / "store", layout=layout)


def test_values_of_which_float16_leaves_nothing_are_refused(tmp_path):
    for size, told in (1e-5, "about .*"), (1e-9, "0 in all training items, or too small"):
        faint = [{**each, "touch": size * each["touch"]} for each in records()]
        with pytest.raises(InputError, match=f"values of 'touch' are {told}.* float32"):
            write_store(faint, tmp_path / "store", layout=LAYOUT)
    write_store(faint, tmp_path / "store", layout=LAYOUT, dtype="float32")
    _, first = (each["touch"] for each in faint[:2])
    touch = read_store(tmp_path / "store", standardise=False).columns["touch"]
    np.testing.assert_array_equal(touch.take(torch.tensor([1]))[0][0], first.astype(np.float32))


@pytest.mark.parametrize(("write", "name"), WRITERS)
def test_a_dtype_or_record_of_another_kind_is_refused(tmp_path, write, name):
    for dtype in ("float64", "int8", np.float32):
        with pytest.raises(InputError, match=r"dtype=...\): .* is none of 'float16', 'float32'"):
            write([], tmp_path / name, layout=LAYOUT, dtype=dtype)
    given = [records()[0], ("clip 1", 0), records()[2]]
    with pytest.raises(InputError, match=f"{name}, a record: is tuple, no mapping; give a"):
        write(given, tmp_path / name, layout=LAYOUT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["store", "pack.npz"])
def test_a_disk_that_takes_no_more_is_a_refusal_that_names_the_target(tmp_path, target):
    code = f"""
    import resource, numpy as np, continual_mm as cm
    given = ({{"ids": str(k), "split": k % 3, "touch": np.full(5000, k + 1.0)}} for k in range(99))
    write = cm.write_store if {target!r} == "store" else cm.write_pack_from
    cm.read_store
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    try:
        layout = (cm.Modality("touch", cm.Kind.VECTOR, (5000,)),)
        write(given, {str(tmp_path / target)!r}, layout=layout)
    except cm.system.errors.InputError as error:
        print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True, text=True
    )
    told = f"{tmp_path / target}: cannot be written: "
    assert done.stdout.startswith(told), done.stdout + done.stderr
    assert done.stdout.endswith("; make room, or choose another place\n")
    assert (done.stderr, list(tmp_path.iterdir())) == ("", [])


def test_the_same_fault_in_many_records_is_told_once(tmp_path):
    given = [{**each, "touch": np.ones(4)} for each in records()]
    given[3]["touch"] = np.ones(5)
    given[4] = record(4, split=3)
    for write, name in WRITERS:
        with pytest.raises(InputError) as caught:
            write(given, tmp_path / name, layout=LAYOUT)
        first, other, split = (str(one) for one in caught.value.problems)
        start = f"{tmp_path / name}, item 'clip"
        shape = "its items are (3,)"
        assert first == f"{start} 0', column 'touch': has shape (4,), and in 7 more items; {shape}"
        assert other == f"{start} 3', column 'touch': has shape (5,); {shape}"
        assert split.startswith(f"{start} 4', column 'split'")
    with pytest.raises(InputError, match="and in 99 more items") as caught:
        write_store(
            ({**record(0), "touch": np.ones(4)} for _ in range(999)), tmp_path / "x", layout=LAYOUT
        )
    assert len(caught.value.problems) == 2
    left_out: list[Problem] = []
    with pytest.raises(InputError, match="has no items"):
        write_store(given[:3], tmp_path / "x", layout=LAYOUT, left_out=left_out)
    assert len(left_out) == 3


def test_groups_may_be_whole_numbers_as_in_a_pack(tmp_path):
    numbers = [7, np.int16(-2), 7, 7, 2**40, 7, 7, 7, -2, 7]
    given = [{**each, "group": group} for each, group in zip(records(), numbers, strict=True)]
    write_store(given, tmp_path / "store", layout=LAYOUT)
    names = group_names(tmp_path / "store")
    group = read_store(tmp_path / "store").group
    assert [int(each) for each in names[group]] == numbers
    given[5]["group"] = 7.5
    with pytest.raises(InputError, match="column 'group': is float, no text"):
        write_store(given, tmp_path / "other", layout=LAYOUT)


def test_a_pack_and_a_store_of_the_same_records_hold_the_same(tmp_path):
    given = [record(k, group=f"video {k % 2}", text_raw="höre") for k in range(10)]
    write_pack_from(iter(given), tmp_path / "pack.npz", layout=LAYOUT)
    write_store(iter(given), tmp_path / "store", layout=LAYOUT, dtype="float32")
    pack = read_pack(tmp_path / "pack.npz", standardise=False)
    store = read_store(tmp_path / "store", standardise=False)
    assert pack.card.modalities == store.card.modalities
    assert pack.card.items == store.card.items == (8, 1, 1)
    assert pack.ids.tolist() == store.ids[np.arange(10)].tolist()
    assert pack.group.tolist() == store.group.tolist() == [0, 1] * 5
    for name, column in pack.columns.items():
        assert column.present.tolist() == store.columns[name].present.tolist()
        rows = torch.from_numpy(np.flatnonzero(column.present))
        for one, other in zip(column.take(rows), store.columns[name].take(rows), strict=True):
            assert (one is None and other is None) or torch.equal(one, other)


def test_the_card_says_what_items_have_also_of_a_store_that_did_not_count(tmp_path):
    # Items 0 and 5 of ten lack speech; both are training items.
    seen = ((("touch", "frames"), (2, 0, 0)), (("touch", "speech", "frames"), (6, 1, 1)))
    card = write_store(records(), tmp_path / "store", layout=LAYOUT)
    assert card.presence == seen
    assert (card.having("touch", "speech"), card.having("touch")) == ((6, 1, 1), (8, 1, 1))
    path = tmp_path / "store" / "store.json"
    form = json.loads(path.read_text())
    earlier = {key: value for key, value in form.items() if key != "presence"}
    path.write_text(json.dumps(earlier))
    assert read_store_card(tmp_path / "store").having("touch", "speech") is None
    for known in (registry.card(str(tmp_path / "store")), read_store(tmp_path / "store").card):
        assert known == card
    path.write_text(json.dumps({**earlier, "presence": []}))
    with pytest.raises(InputError, match=r"items lack other modalities than store\.json says"):
        read_store(tmp_path / "store")


def test_a_time_that_is_given_is_the_least_and_a_longer_item_raises_it(tmp_path):
    layout = (
        LAYOUT[0],
        Modality("speech", Kind.SPECTROGRAM, (7, 2)),
        Modality("frames", Kind.FRAMES, (1, 2, 2)),
    )
    write_pack_from(iter(records()), tmp_path / "pack.npz", layout=layout)
    write_store(iter(records()), tmp_path / "store", layout=layout)
    pack = read_pack(tmp_path / "pack.npz")
    for card in (pack.card, read_store(tmp_path / "store").card):
        assert [one.shape for one in card.modalities] == [(3,), (7, 2), (2, 2, 2)]
    assert pack.columns["speech"].valid.max() == 4


def test_what_does_not_fit_into_memory_is_refused_before_it_is_gathered(tmp_path):
    seen = []

    def many():
        for number in range(10**9):
            seen.append(number)
            yield {**records()[1], "ids": str(number)}

    with pytest.raises(InputError, match=r"does not fit into 0\.0 GB of memory.*write a store"):
        write_pack_from(many(), tmp_path / "pack.npz", layout=LAYOUT, memory=10_000)
    assert len(seen) < 10_000 / 4 / 3


def test_without_arrow_packs_are_written_and_read_and_stores_are_refused(tmp_path):
    code = f"""
    import sys
    sys.modules |= dict.fromkeys(("datasets", "pandas", "pyarrow"))
    import numpy as np
    import continual_mm as cm
    items = [{{"ids": str(k), "split": k, "touch": np.ones(3) * k}} for k in range(3)]
    layout = (cm.Modality("touch", cm.Kind.VECTOR, (3,)),)
    cm.write_pack_from(items, {str(tmp_path / "pack.npz")!r}, layout=layout)
    assert cm.read_pack({str(tmp_path / "pack.npz")!r}).card.items == (1, 1, 1)
    for name in ("write_store", "read_store", "store_writer"):
        try:
            getattr(cm, name)
        except ValueError as error:
            print(error)
    """
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    for line, name in zip(told, ("write_store", "read_store", "store_writer"), strict=True):
        assert re.fullmatch(
            rf"continual_mm\.{name}: \w+ is not installed; pip install 'continual-mm\[data\]'", line
        )
