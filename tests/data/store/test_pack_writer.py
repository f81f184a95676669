"""Records written as a feature pack."""

import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from continual_mm.data.pack import read_pack
from continual_mm.data.store.pack_writer import write_pack_from
from continual_mm.data.store.reader import read_store
from continual_mm.data.store.writer import write_store
from continual_mm.definitions.modality import Kind, Modality
from continual_mm.system.errors import InputError

LAYOUT = (
    Modality("touch", Kind.VECTOR, (3,)),
    Modality("speech", Kind.SPECTROGRAM, (0, 2)),
    Modality("frames", Kind.FRAMES, (0, 2, 2)),
)


def records():
    rng = np.random.default_rng(0)
    return [
        {
            "ids": f"clip {k}",
            "split": max(0, k - 5),
            "group": f"video {k % 2}",
            "text_raw": "höre",
            "touch": rng.normal(size=3),
            "speech": rng.normal(size=(1 + k % 3, 2)) if k % 4 else None,
            "frames": rng.normal(size=(1 + k % 2, 2, 2)),
        }
        for k in range(8)
    ]


def test_a_pack_and_a_store_of_the_same_records_hold_the_same(tmp_path):
    write_pack_from(iter(records()), tmp_path / "pack.npz", layout=LAYOUT)
    write_store(iter(records()), tmp_path / "store", layout=LAYOUT, dtype="float32")
    pack = read_pack(tmp_path / "pack.npz", standardise=False)
    store = read_store(tmp_path / "store", standardise=False)
    assert pack.card.modalities == store.card.modalities
    assert pack.card.items == store.card.items == (6, 1, 1)
    assert pack.ids.tolist() == store.ids[np.arange(8)].tolist()
    assert pack.group.tolist() == store.group.tolist() == [0, 1] * 4
    for name, column in pack.columns.items():
        assert column.present.tolist() == store.columns[name].present.tolist()
        rows = torch.from_numpy(np.flatnonzero(column.present))
        for one, other in zip(column.take(rows), store.columns[name].take(rows), strict=True):
            assert (one is None and other is None) or torch.equal(one, other)


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
    assert pack.columns["speech"].valid.max() == 3


def test_what_does_not_fit_into_memory_is_refused_before_it_is_gathered(tmp_path):
    seen = []

    def many():
        for number in range(10**9):
            seen.append(number)
            yield {**records()[1], "ids": str(number)}

    with pytest.raises(InputError, match=r"does not fit into 0\.0 GB of memory.*write a store"):
        write_pack_from(many(), tmp_path / "pack.npz", layout=LAYOUT, memory=10_000)
    assert len(seen) < 10_000 / 4 / 3


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"ids": "clip 1"}, "ids occur more than once: 'clip 1'"),
        ({"touch": np.zeros(2)}, "item 'clip 7', column 'touch': has shape"),
    ],
)
def test_what_is_wrong_is_refused(tmp_path, change, problem):
    given = records()
    given[7] |= change
    with pytest.raises(InputError, match=problem):
        write_pack_from(given, tmp_path / "pack.npz", layout=LAYOUT)
    assert not (tmp_path / "pack.npz").exists()


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
