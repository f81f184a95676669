"""Stores that were damaged, or made to mislead: one clear refusal each, naming the file."""

import json
import os
import re
import shutil
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from continual_mm.data.store import form
from continual_mm.data.store.form import Window, Windows, Words, read_store_card
from continual_mm.data.store.reader import read_store, verify_store
from continual_mm.data.store.writer import store_writer, write_store
from continual_mm.definitions.modality import Kind, Modality
from continual_mm.system.errors import InputError

LAYOUT = (
    Modality("touch", Kind.VECTOR, (3,)),
    Modality("speech", Kind.TOKENS, (0, 2)),
    Words(Modality("text", Kind.TOKENS, (0, 2)), np.ones((4, 2), dtype=np.float32)),
    Windows(Modality("motion", Kind.FRAMES, (9, 2)), {"frames": 2}),
)

FINGERPRINT = "8c1b7df583cd0021cd6a69f245140eee0f7d046ecf111b118a13f50d20ba79ce"
"""Of a small store, as the first version wrote it."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "store"
    rng = np.random.default_rng(0)
    with store_writer(path, layout=LAYOUT, shard_bytes=150) as writer:
        for name in ("motion", "tape", "disc"):
            writer.recording(name, {"frames": rng.normal(size=(40, 2))})
        for row in range(9):
            speech = rng.normal(size=(1 + 20 * (row % 3), 2))
            item = {"touch": rng.normal(size=3), "speech": speech, "text": np.arange(row % 3 + 1)}
            item |= {"motion": Window(0, ((row % 3, 5),))}
            writer.item({"ids": str(row), "split": max(0, row - 6), **item})
    return path


@pytest.fixture
def store(sound, tmp_path):
    return Path(shutil.copytree(sound, tmp_path / "store"))


@pytest.fixture
def shard(store):
    return store / "items" / "data-00001.arrow"


@contextmanager
def form_of(store):
    """The contents of store.json, written back at the end of the block."""
    said = json.loads((store / "store.json").read_text())
    yield said
    (store / "store.json").write_text(json.dumps(said))


def refused(store):
    with pytest.raises(InputError) as caught:
        read_store(store)
    return str(caught.value)


def rewrite(store, shard, change, **options):
    """Write other columns into a shard, with the size that store.json expects."""
    with pa.memory_map(str(shard)) as file:
        table = change(pa.ipc.open_stream(file).read_all())
        with (
            pa.OSFile(str(shard) + ".new", "wb") as new,
            pa.ipc.new_stream(new, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as to,
        ):
            to.write_table(table)
    Path(str(shard) + ".new").replace(shard)
    with form_of(store) as said:
        said["tables"]["items"][1]["bytes"] = shard.stat().st_size


def test_a_shard_that_was_cut_or_overwritten_is_refused(store, shard):
    content = shard.read_bytes()
    for length in (0, 1, len(content) // 2, len(content) - 1):
        shard.write_bytes(content[:length])
        assert f"{shard}: has {length} bytes" in refused(store)
    for byte in (b"\0", b"\xff"):
        shard.write_bytes(byte * len(content))
        assert f"{shard}: " in refused(store)


@pytest.mark.parametrize("alike", [False, True])
def test_shards_that_changed_places_are_refused(store, alike):
    forms = json.loads((store / "store.json").read_text())["tables"]["items"]
    pairs = combinations(range(len(forms)), 2)
    first, second = next(pair for pair in pairs if (forms[pair[0]] == forms[pair[1]]) is alike)
    one, other = (store / "items" / f"data-{each:05d}.arrow" for each in (first, second))
    content = one.read_bytes(), other.read_bytes()
    one.write_bytes(content[1])
    other.write_bytes(content[0])
    if alike:
        with pytest.raises(InputError, match="other values than those of the fingerprint"):
            verify_store(store)
    else:
        assert f"{one}: has" in refused(store)


def test_what_is_no_file_is_not_waited_for(store, shard):
    shard.unlink()
    os.mkfifo(shard)
    assert f"{shard}: is no file" in refused(store)
    (store / "store.json").unlink()
    os.mkfifo(store / "store.json")
    assert "store.json: is no file" in refused(store)


def test_groups_that_are_not_there_are_refused(tmp_path):
    items = [
        {"ids": str(k), "split": k, "group": f"video {k}", "touch": np.ones(3)} for k in range(3)
    ]
    write_store(items, tmp_path / "store", layout=LAYOUT[:1])
    with form_of(tmp_path / "store") as said:
        del said["tables"]["groups"]
    assert "'group': leads to groups that are not there" in refused(tmp_path / "store")


def test_flipped_bytes_never_end_the_process(store, shard):
    content, rng = shard.read_bytes(), np.random.default_rng(0)
    for place in rng.integers(0, len(content), size=150):
        changed = bytearray(content)
        changed[place] ^= 1 << rng.integers(8)
        shard.write_bytes(changed)
        try:
            dataset = read_store(store, standardise=False)
            rows = np.arange(len(dataset))
            for column in dataset.columns.values():
                column.take(torch.from_numpy(rows))
        except (InputError, IndexError):
            pass


def test_a_shard_that_lies_elsewhere_is_refused(store, shard, tmp_path):
    shard.rename(tmp_path / "elsewhere.arrow")
    shard.symlink_to(tmp_path / "elsewhere.arrow")
    assert f"{shard}: leads out of the store" in refused(store)
    shard.unlink()
    (tmp_path / "elsewhere.arrow").rename(shard)
    (store / "items").rename(tmp_path / "items")
    (store / "items").symlink_to(tmp_path / "items")
    assert "leads out of the store" in refused(store)


def test_a_table_that_is_a_link_to_itself_is_refused(store):
    shutil.rmtree(store / "items")
    (store / "items").symlink_to("items")
    assert re.search("links lead in a circle|levels of symbolic links", refused(store))


def test_a_store_may_itself_be_linked(store, tmp_path):
    (tmp_path / "link").symlink_to(store)
    assert len(read_store(tmp_path / "link")) == 9


def as_float32(table):
    wide = table["touch"].cast(pa.list_(pa.float32(), 3))
    return table.set_column(table.column_names.index("touch"), "touch", wide)


@pytest.mark.parametrize(
    ("change", "options", "problem"),
    [
        (lambda table: table.drop_columns("touch"), {}, "has no column 'touch'"),
        (as_float32, {}, "column 'touch' is fixed_size_list<"),
        (lambda table: table, {"compression": "zstd"}, "is compressed or out of line"),
        (lambda table: table.slice(1), {}, "has 0 rows, but 1 are expected"),
    ],
)
def test_another_table_than_the_form_describes_is_refused(store, shard, change, options, problem):
    rewrite(store, shard, change, **options)
    assert f"{shard}: {problem}" in refused(store)


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("version",), 2, "version"),
        (("fingerprint",), "../../up", "fingerprint"),
        (("items",), [10**30, 0, 0], "items"),
        (("items",), [6, 2, 1], "split"),
        (("items",), [6, 2, 0], "8 items, but 9 rows"),
        (("dtype",), "object", "dtype"),
        (("columns",), ["picture"], "columns"),
        (("columns",), ["label", "label"], r"columns: a name occurs twice"),
        (("more",), "unknown", "more"),
        (("modalities",), [], "modalities"),
        (("modalities", 0, "name"), "../touch", "name"),
        (("modalities", 0, "shape"), [2**40], "shape"),
        (("modalities", 0, "shape"), [4], "means and deviations"),
        (("modalities", 1, "shape"), [2**30, 2**30], "fit into no memory"),
        (("modalities", 1, "shape"), [2, 2], "1 to 41 steps, not 1 to 2"),
        (("modalities", 1, "kind"), "vector", "are no vector"),
        (("modalities", 1, "deviation"), [-1.0, 1.0], "deviation"),
        (("modalities", 1, "name"), "touch", "twice"),
        (("modalities", 2, "words"), 5, r"text.npy: is float16 of shape"),
        (("modalities", 2, "words"), 0, "do not go together"),
        (("modalities", 3, "parts"), {"../x": 2}, "parts"),
        (("modalities", 3, "parts"), {"frames": 3}, "parts of 3 features do not make 2"),
        (("modalities", 3, "parts"), {"other": 2}, "has no column 'other'"),
        (("modalities", 3, "reduce"), "eval", "reduce"),
        (("modalities", 3, "reduce"), "max", "windows are vectors"),
        (("tables", "../up"), [], "tables"),
        (("tables", "items"), [{"rows": 9, "bytes": 1}], "data-00000.arrow: has"),
        (("tables", "items", 0, "rows"), 10**9, "rows in the shards"),
        (("tables", "recordings"), [], "there are windows, but no recordings"),
    ],
)
def test_a_form_that_lies_is_refused(store, path, value, problem):
    with form_of(store) as inner:
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
    with pytest.raises(InputError, match=problem) as caught:
        read_store(store)
    assert str(store) in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b'{"version": 1}', b"[" * 10**5]
)
def test_a_form_that_is_no_form_is_refused(store, content):
    (store / "store.json").write_bytes(content)
    for read in (read_store_card, read_store):
        with pytest.raises(InputError, match=r"store\.json"):
            read(store)


def test_a_form_that_is_not_there_or_endless_is_refused(store, monkeypatch):
    with pytest.raises(InputError, match=r"store\.json: cannot be opened"):
        read_store_card(store / "items")
    monkeypatch.setattr(form, "LARGEST_FORM", 100)
    with pytest.raises(InputError, match=r"store\.json: is larger than"):
        read_store_card(store)


def test_stores_of_earlier_versions_are_read(store):
    with form_of(store) as said:
        said["statistics"] = "0" * 64
        for shard in (shard for shards in said["tables"].values() for shard in shards):
            shard["edges"] = "0" * 32
    assert len(read_store(store)) == 9
    verify_store(store)


@pytest.mark.parametrize("modality", [0, 1, 3])
def test_changed_statistics_are_found_by_measuring_anew(store, modality):
    verify_store(store)
    with form_of(store) as said:
        one = said["modalities"][modality]
        one["deviation"] = [3 * each for each in one["deviation"]]
    with pytest.raises(InputError, match=rf"column '{one['name']}': has other means and dev"):
        verify_store(store)


def test_the_fingerprint_is_that_of_stores_written_before(tmp_path):
    items = [{"ids": f"{k}", "split": k, "touch": np.arange(3.0) + k} for k in range(3)]
    card = write_store(items, tmp_path / "store", layout=LAYOUT[:1])
    assert card.fingerprint == FINGERPRINT
