"""Pickles, and files of torch, are read as Python and torch read them; damaged ones are refused."""

import collections
import pickle
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from continual_mm.preparation.formats.pickles import load_pickle
from continual_mm.system.errors import InputError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
CLIP = {"id": "a", "2d": np.zeros(3, np.float32), "audio": torch.zeros(2, 3), "n": np.float32(1)}


def same(read, written):
    """Equal in type, shape and value."""
    if isinstance(written, torch.Tensor):
        alike = isinstance(read, torch.Tensor) and read.dtype == written.dtype
        return alike and torch.equal(read, written)
    if isinstance(written, np.ndarray):
        alike = type(read) is np.ndarray and read.dtype == written.dtype
        return alike and read.shape == written.shape and bool((read == written).all())
    return type(read) is type(written) and read == written


HONEST = [
    {"a": [1, -2, 2.5, None, True, False, "é\n", b"x\xff", bytearray(b"y"), 2**100]},
    [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {1, 2}, frozenset({3}), set(), frozenset()],
    [b"", bytearray(), 70_000, 300, float("inf"), "x" * 300],
    {1: 1, None: 2, b"b": 3, 2.5: 4},
    *(np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(6.0).reshape(2, 3).T),
    *(np.zeros((2, 3, 4)).transpose(2, 0, 1), np.zeros((0, 3), np.float16), np.array(3.5)),
    *(np.arange(3, dtype=">f4"), np.array([["a", "bcé"]]), np.array([b"ab", b"c"])),
    *(np.array(["x", None, [1, 2]], dtype=object), np.array([True, False]), np.dtype("<f4")),
    *(np.float32(2.5), np.int64(3), np.str_("ab"), np.str_(""), np.bool_(True)),
    *(torch.arange(6.0).reshape(2, 3), torch.arange(6.0).reshape(2, 3).T, torch.tensor(3)),
    *(torch.arange(10)[3:5], torch.zeros(2, dtype=torch.bfloat16), torch.zeros(0, 3)),
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_honest_pickles_are_read_as_python_reads_them(opened, protocol):
    for thing in HONEST:
        assert same(opened(pickle.dumps(thing, protocol)), thing), thing


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ordered_and_default_dicts_are_read_as_dicts(opened, protocol):
    for thing in (OrderedDict(b=1, a=2), collections.defaultdict(list, b=[1], a=[])):
        read = opened(pickle.dumps(thing, protocol))
        assert type(read) is dict
        assert list(read.items()) == list(thing.items())


def test_what_is_shared_in_the_pickle_is_shared_in_the_result(opened):
    part: list[object] = [1]
    whole = [part, part]
    whole.append(whole)
    read = opened(pickle.dumps(whole))
    assert read[0] is read[1]
    assert read[2] is read


def test_old_and_new_names_of_numpy_mean_the_same(forge, opened):
    raw = struct.pack("<2f", 1.5, 2.0)
    for core in ("numpy.core", "numpy._core"):
        state = (1, (2,), forge.floats, False, raw)
        name = f"{core}.multiarray._reconstruct"
        array = forge.Made(name, forge.ndarray, (0,), b"b", state=state)
        assert opened(forge(array)).tolist() == [1.5, 2.0]
        assert opened(forge(forge.Made(f"{core}.multiarray.scalar", forge.floats, raw[:4]))) == 1.5


def test_pickles_of_python_2_are_read(opened):
    # What Python 2.7 writes for {"x": numpy.array([1.5, -2.]), u"é": "a\xff"}, by its rules.
    data = (
        b"(dp0\nS'x'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n"
        b"(I0\ntp4\nS'b'\np5\ntp6\nRp7\n(I1\n(I2\ntp8\ncnumpy\ndtype\np9\n(S'f8'\np10\nI0\nI1\n"
        b"tp11\nRp12\n(I3\nS'<'\np13\nNNNI-1\nI-1\nI0\ntp14\nbI00\n"
        b"S'\\x00\\x00\\x00\\x00\\x00\\x00\\xf8?\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\xc0'\n"
        b"p15\ntp16\nbsV\\u00e9\np17\nS'a\\xff'\np18\ns."
    )
    read = opened(data)
    assert read["x"].tolist() == [1.5, -2.0]
    assert read["é"] == "aÿ"
    assert opened(b"S'a\\n\\x41\\101\\\\\\''\n.") == "a\nAA\\'"
    assert opened(b'S"it\'s"\n.') == "it's"


@pytest.mark.parametrize("wrong", [b"S'a\n.", b"Sa\n.", b"S'\\q'\n.", b"S'\\777'\n.", b"S'a\\'\n."])
def test_strings_that_python_2_would_not_have_written_are_refused(refusal, wrong):
    assert "cannot be read" in refusal(wrong)


def test_the_state_of_an_object_reaches_no_other_place_of_the_memo(opened):
    # Place 1 has held the dtype before its state came, and then a text.
    dtype = b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tRq\x01"
    state = b"(K\x03U\x01>NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"
    found = opened(b"\x80\x02" + dtype + b"U\x01aq\x010" + state + b"bh\x01\x86.")
    assert found == (found[0], "a")
    assert str(found[0]) == ">f4"


def test_every_beginning_of_a_pickle_is_refused_as_cut_short(opened, refusal):
    for protocol in (0, 2, 4):
        whole = pickle.dumps([CLIP], protocol)
        opened(whole)
        for end in range(1, len(whole)):
            assert "cut short" in refusal(whole[:end])


def test_missing_empty_and_other_files_are_one_clear_refusal_each(tmp_path):
    empty, other, packed = tmp_path / "empty", tmp_path / "other", tmp_path / "packed.npz"
    empty.touch()
    other.write_text("path\nfood/abc\n")
    np.savez(packed, a=np.zeros(2))
    words = {
        tmp_path / "missing": "No such file",
        tmp_path: "directory",
        Path("/dev/zero"): "no file on a disk",
        empty: "is empty",
        other: "damaged",
        packed: "a zip archive that torch.save did not write",
    }
    for path, word in words.items():
        with pytest.raises(InputError, match=word) as caught:
            load_pickle(path)
        assert len(caught.value.problems) == 1


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saved_is_read(forge, tmp_path, zipped):
    values = torch.arange(6.0).reshape(2, 3)
    dtypes = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool)
    saved = {
        "audio": values,
        "shared": values[1],
        "turned": values.T,
        "own": torch.nn.Parameter(torch.ones(2)),
        "none": torch.zeros(0, 3),
        # Torch's own weights-only load refuses NumPy's arrays, of which published clips are made.
        "array": np.arange(3.0),
        "ordered": OrderedDict(a=torch.tensor(1.5)),
        **{str(dtype): torch.tensor([0, 1, 3]).to(dtype) for dtype in dtypes},
    }
    path = tmp_path / "it.pt"
    path.write_bytes(forge.saved(saved, zipped=zipped))
    read, expected = load_pickle(path), torch.load(path, weights_only=False)
    assert isinstance(read, dict)
    assert torch.equal(read["ordered"].pop("a"), expected["ordered"].pop("a"))
    assert read.pop("array").tolist() == expected.pop("array").tolist()
    for name in saved.keys() - {"ordered", "array"}:
        assert read[name].dtype == expected[name].dtype
        assert torch.equal(read[name], expected[name])
    read["audio"][1, 0] = 9
    assert read["shared"][0] == 9


# Made once: a pickled tensor has an address in it, of which no two are as long.
WHOLE = tuple(pickle.dumps([CLIP], protocol) for protocol in (2, 0, 5))


@settings(
    max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_files_are_read_or_refused_and_nothing_else(forge, opened, data):
    saved = [forge.saved([CLIP], zipped=zipped) for zipped in (True, False)]
    damaged = bytearray(data.draw(st.sampled_from((*WHOLE, *saved))))
    # torch writes addresses into the older form, so that its length is not always the same.
    places = st.integers(0, 10_000)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(places) % len(damaged)] = data.draw(st.integers(0, 255))
    try:
        opened(bytes(damaged[: 1 + data.draw(places) % len(damaged)]))
    except InputError as refused:
        assert len(refused.problems) == 1
