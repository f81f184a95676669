"""What is allowed cannot be misused, nor can a small file fill the memory."""

import pickle
import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
import torch

from continual_mm.preparation.formats.machine.unpickling import unpickled


def opened(data: bytes) -> Any:
    return unpickled(data, place="it")


def build(f: Any, function: object, state: object) -> bytes:
    return f([function], 2)[:-2] + f(state, 2)[2:-1] + b"b."


MISUSES = {
    # Field names and flags of its own would make NumPy take bytes for pointers.
    "structured dtype": lambda f: f.Made(
        f.Named("numpy", "dtype"),
        "V8",
        False,
        True,
        state=(3, "|", None, ("a",), {"a": (f.objects, 0)}, 8, 1, 0),
    ),
    "flagged dtype": lambda f: f.Made(
        f.Named("numpy", "dtype"),
        "f8",
        False,
        True,
        state=(3, "<", None, ("a",), {"a": (f.objects, 0)}, 8, 1, 0),
    ),
    "flagged text": lambda f: f.Made(
        f.Named("numpy", "dtype"),
        "S8",
        False,
        True,
        state=(3, "|", None, ("a",), {"a": (f.objects, 0)}, 8, 1, 0),
    ),
    "bytes as objects": lambda f: f.array((1,), f.objects, b"\0" * 8),
    "objects from a buffer": lambda f: f.Made(
        f.Named("numpy.core.numeric", "_frombuffer"), b"\0" * 8, f.objects, (1,), "C"
    ),
    "object as a scalar": lambda f: f.Made(
        f.Named("numpy.core.multiarray", "scalar"), f.objects, b"\0" * 8
    ),
    "another class": lambda f: f.Made(f.reconstruct, f.Named("builtins", "list"), (0,), b"b"),
    "too little data": lambda f: f.array((1000,), f.floats, b"\0" * 4),
    "too much data": lambda f: f.array((1,), f.floats, b"\0" * 8),
    "negative shape": lambda f: f.array((-1, -1), f.floats, b"\0" * 4),
    "endless shape": lambda f: f.array((2**40, 2**40), f.floats, b""),
    "endless dtype": lambda f: f.Made(f.Named("numpy", "dtype"), "U999999999", False, True),
    "state of a class": lambda f: build(f, f.ndarray, {"__reduce__": 1}),
    "attributes of a class": lambda f: build(f, f.ndarray, (None, {"__call__": 1})),
    "state of a dict": lambda f: build(f, {}, {"keys": 1}),
    "call of a class": lambda f: f.Made(f.ndarray, (2**40,)),
    "call of text": lambda f: f.Made("os.system", "true"),
    "big tensor": lambda f: f.tensor((2**40,), (0,)),
    "tensor beyond its storage": lambda f: f.tensor((4,), (2,)),
    "tensor before its storage": lambda f: f.tensor((1,), (1,), offset=-1),
    "tensor with negative strides": lambda f: f.tensor((2,), (-1,)),
    "zip in a tensor": lambda f: f.Made(
        f.Named("torch.storage", "_load_from_bytes"), f.saved(torch.zeros(1), zipped=True)
    ),
    "tensor for a storage": lambda f: f.Made(
        f.Named("torch.storage", "_load_from_bytes"), f.saved(torch.zeros(1), zipped=False)
    ),
    "bytearray of a size": lambda f: f.Made(f.Named("builtins", "bytearray"), 2**40),
    "bytes of a size": lambda f: f.Made(f.Named("builtins", "bytes"), 2**40),
    "other codec": lambda f: f.Made(f.Named("_codecs", "encode"), "a", "rot13"),
    "frame without a manager": lambda f: f.Made(
        f.Named("pandas.core.frame", "DataFrame"), state={"a": 1}
    ),
    "index of nothing": lambda f: f.Made(
        f.Named("pandas.core.indexes.base", "_new_Index"), f.Named("pandas", "Index"), {"data": 3}
    ),
    "negative strides": lambda f: f.Made(
        f.Named("numpy.core.numeric", "_frombuffer"), b"\0" * 8, f.floats, (2,), "K", (-1,)
    ),
    "subarray dtype": lambda f: f.Made(
        f.Named("numpy", "dtype"),
        "V8",
        False,
        True,
        state=(3, "|", (f.floats, (2,)), *f.numbers[1:]),
    ),
    "dates": lambda f: f.Made(f.Named("numpy", "dtype"), "M8[ns]", False, True),
    "attributes of an array": lambda f: build(f, f.array((1,), f.floats, b"\0" * 4), {"shape": 1}),
    "keywords of a class": lambda f: b"\x80\x04" + f(f.ndarray)[2:-1] + b")}K\x01K\x01s\x92.",
    "tensor of endless numbers": lambda f: f.tensor((2**70,), (2**70,)),
    "tensor of no values and all sizes": lambda f: f.tensor((0, 2**62, 2**62), (1, 1, 1)),
    "array of no values and all sizes": lambda f: f.array((0, 2**62, 2**62), f.floats, b""),
    "fewer strides than axes": lambda f: f.tensor((2, 2), (1,)),
}


@pytest.mark.parametrize("misuse", sorted(MISUSES))
def test_what_is_allowed_cannot_be_misused(
    forge: Any, refusal: Callable[[bytes], str], misuse: str
) -> None:
    hostile = MISUSES[misuse](forge)
    refusal(hostile if isinstance(hostile, bytes) else forge(hostile))


BOMBS = {
    # A place in the memo for which Python's own machine reserves 32 GB.
    "memo": (b"\x80\x02Nr\xff\xff\xff\x7f.", False),
    "text": (b"\x80\x04\x8d" + struct.pack("<Q", 2**60), True),
    "bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 2**34), True),
    "bytearray": (b"\x80\x05\x96" + struct.pack("<Q", 2**34), True),
    "frame": (b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.", False),
    # One list of 2,000, made a set 5,000 times.
    "copies": (
        b"\x80\x02](" + b"".join(b"J" + struct.pack("<i", i) for i in range(2000)) + b"eq\x00"
        b"c__builtin__\nset\nq\x01(" + b"h\x01h\x00\x85R" * 5000 + b"t.",
        True,
    ),
    # Hashing it would overflow the stack of Python itself.
    "depth": (b"\x80\x02}N" + b"\x85" * 100_000 + b"Ns.", True),
    "digits": (b"I" + b"9" * 100_000 + b"\n.", True),
}


@pytest.mark.parametrize("bomb", sorted(BOMBS))
def test_a_small_file_cannot_fill_the_memory(refusal: Callable[[bytes], str], bomb: str) -> None:
    data, refused = BOMBS[bomb]
    tracemalloc.start()
    try:
        if refused:
            refusal(data)
        else:
            assert opened(data) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100e6


def test_arrays_of_objects_within_each_other_are_refused(
    forge: Any, refusal: Callable[[bytes], str]
) -> None:
    """NumPy frees them by recursion: 10,000 of them overflowed the stack of the whole process."""
    names = b"".join(
        forge(one)[2:-1] + b"r" + struct.pack("<I", place) + b"0"
        for place, one in enumerate((forge.objects, forge.reconstruct, forge.ndarray), 1)
    )
    level = b"r\x09\0\0\x000j\x02\0\0\0j\x03\0\0\0K\0\x85C\x01b\x87R"
    level += b"(K\1K\1\x85j\x01\0\0\0\x89]j\x09\0\0\0atb"
    assert opened(b"\x80\x03" + names + b"N" + level + b".").tolist() == [None]
    told = refusal(b"\x80\x03" + names + b"N" + level * 10_000 + b".")
    assert "array of objects in another" in told


def test_a_name_is_told_without_what_steers_a_terminal(
    forge: Any, refusal: Callable[[bytes], str]
) -> None:
    told = refusal(forge(forge.Named("mine\x1b[2J", "x" * 10_000)))
    assert "mine\\x1b[2J.xxx" in told
    assert told.isprintable()
    assert len(told) < 500


def test_the_state_of_an_object_reaches_no_other_place_of_the_memo() -> None:
    # Place 1 has held the dtype before its state came, and then a text.
    dtype = b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tRq\x01"
    state = b"(K\x03U\x01>NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"
    found = opened(b"\x80\x02" + dtype + b"U\x01aq\x010" + state + b"bh\x01\x86.")
    assert found == (found[0], "a")
    assert str(found[0]) == ">f4"


def test_keys_that_all_hash_alike_are_refused(refusal: Callable[[bytes], str]) -> None:
    """A dict of n of them takes n * n steps: 20,000 took seconds, and 300 kB a minute."""
    large = [number * (2**61 - 1) for number in range(100)]
    complex_ones = [complex(-1_000_003 * number, number) for number in range(100)]
    for alike in (large, complex_ones):
        assert len(set(map(hash, alike))) == 1
        for keys in (dict.fromkeys(alike), set(alike), {(key, "a") for key in alike}):
            assert "as the key" in refusal(pickle.dumps(keys))
    assert opened(pickle.dumps({2**64 - 1, -(2**64) + 1})) == {2**64 - 1, -(2**64) + 1}
