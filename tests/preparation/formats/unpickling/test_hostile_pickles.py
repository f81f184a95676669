"""What would run a program is refused, and was never run."""

import copyreg
import os
import pickle
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from continual_mm.preparation.formats.machine.unpickling import load_pickle, unpickled
from continual_mm.system.errors import InputError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.target,)


def in_a_tensor(f: Any, target: str) -> bytes:
    storage = f.Made(
        f.Named("torch.storage", "_load_from_bytes"), f.saved(Malicious(target), zipped=False)
    )
    rebuild = f.Named("torch._utils", "_rebuild_tensor_v2")
    return f(f.Made(rebuild, storage, 0, (1,), (1,), False, {}))


def in_an_array(f: Any, target: str) -> bytes:
    array = np.empty(2, dtype=object)
    array[:] = [Malicious(target)] * 2
    return pickle.dumps([{"audio": array}])


def by_a_chain(f: Any, target: str) -> bytes:
    caller = f.Made(f.Named("operator", "methodcaller"), "mkdir", target)
    return f(f.Made(caller, f.Made(f.Named("importlib", "import_module"), "os")))


def by_getters(f: Any, target: str) -> bytes:
    getter = f.Made(f.Named("operator", "attrgetter"), "path.os.mkdir")
    return f(f.Made(f.Made(getter, f.Made(f.Named("importlib", "import_module"), "os")), target))


def by_a_dotted_name(f: Any, target: str) -> bytes:
    name = pickle.dumps("os", 4)[2:-1] + pickle.dumps("path.os.mkdir", 4)[2:-1]
    frameless = b"\x80\x04\x8c\x02os\x8c\x0dpath.os.mkdir\x93"
    assert b"os" in name
    return frameless + b"X" + struct.pack("<I", len(target)) + target.encode() + b"\x85R."


def by_numpy(f: Any, target: str) -> bytes:
    path = Path(target).with_suffix(".npy")
    array = np.empty(1, dtype=object)
    array[0] = Malicious(target)
    np.save(path, array, allow_pickle=True)
    return f(f.Made(f.Named("numpy", "load"), str(path), None, True))


def by_pandas(f: Any, target: str) -> bytes:
    path = Path(target).with_suffix(".pickle")
    path.write_bytes(pickle.dumps(Malicious(target)))
    return f(f.Made(f.Named("pandas", "read_pickle"), str(path)))


def by_partial(f: Any, target: str) -> bytes:
    partial = f.Named("functools", "partial")
    return f(f.Made(f.Made(partial, f.Named("os", "mkdir"), target)))


ATTACKS = {
    **{
        f"call, protocol {one}": lambda f, t, p=one: pickle.dumps(Malicious(t), p)
        for one in PROTOCOLS
    },
    "eval": lambda f, t: f(f.Made(f.Named("builtins", "eval"), f"__import__('os').mkdir({t!r})")),
    "Python 2's name of eval": lambda f, t: f(
        f.Made(f.Named("__builtin__", "eval"), f"__import__('os').mkdir({t!r})")
    ),
    "INST": lambda f, t: f"(S{t!r}\nios\nmkdir\n.".encode(),
    "OBJ": lambda f, t: f"(cos\nmkdir\nS{t!r}\no.".encode(),
    "chain of calls": by_a_chain,
    "chain of getters": by_getters,
    "dotted name": by_a_dotted_name,
    "behind data": lambda f, t: pickle.dumps([{"id": "a", "2d": np.zeros(3)}, Malicious(t)]),
    "in an array": in_an_array,
    "in a tensor": in_a_tensor,
    "numpy.load": by_numpy,
    "pandas.read_pickle": by_pandas,
    "functools.partial": by_partial,
    "reconstructor": lambda f, t: f(
        f.Made(
            f.Named("copyreg", "_reconstructor"), f.Named("os", "mkdir"), f.Named("os", "mkdir"), t
        )
    ),
}
CONTROLLED = sorted(set(ATTACKS) - {"reconstructor"})


@pytest.mark.parametrize("attack", sorted(ATTACKS))
def test_a_hostile_pickle_is_refused_and_never_run(forge: Any, tmp_path: Path, attack: str) -> None:
    target = tmp_path / "was-run"
    path = tmp_path / "clips.pkl"
    path.write_bytes(ATTACKS[attack](forge, str(target)))
    with pytest.raises(InputError) as caught:
        load_pickle(path)
    (problem,) = caught.value.problems
    assert problem.place == str(path)
    assert not target.exists()


@pytest.mark.parametrize("attack", CONTROLLED)
def test_the_same_pickle_runs_where_it_is_trusted(forge: Any, tmp_path: Path, attack: str) -> None:
    """A control: the tests above would see an attack that works."""
    target = tmp_path / "was-run"
    data = ATTACKS[attack](forge, str(target))
    try:
        pickle.loads(data)
    except Exception as error:  # noqa: BLE001 - what it ends in is its own affair
        assert "pandas" not in str(error)
    assert target.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_file_of_torch_is_refused_and_never_run(
    forge: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    # A variable with which people make old programs run.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    target, path = tmp_path / "was-run", tmp_path / "clips.pt"
    path.write_bytes(forge.saved(Malicious(str(target)), zipped=zipped))
    with pytest.raises(InputError, match=r"mkdir, which is not opened"):
        load_pickle(path)
    assert not target.exists()
    torch.load(path, weights_only=False)
    assert target.exists()


def test_extension_codes_are_refused_even_if_a_program_registered_them(
    refusal: Callable[[bytes], str], tmp_path: Path
) -> None:
    target = tmp_path / "was-run"
    copyreg.add_extension(os.mkdir.__module__, "mkdir", 240)
    try:
        data = pickle.dumps(Malicious(str(target)), 2)
        assert pickle.EXT1 in data
        assert "extension registry" in refusal(data)
        assert not target.exists()
        pickle.loads(data)
        assert target.exists()
    finally:
        copyreg.remove_extension(os.mkdir.__module__, "mkdir", 240)


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "posix.system",
        "builtins.eval",
        "builtins.exec",
        "builtins.getattr",
        "builtins.__import__",
        "builtins.type",
        "operator.attrgetter",
        "numpy.load",
        "numpy.DataSource",
        "numpy.memmap",
        "numpy.matrix",
        "numpy.ndarray.__class__",
        "numpy.core.multiarray.fromfile",
        "torch.load",
        "torch.serialization.load",
        "torch.hub.load",
        "torch.storage.UntypedStorage",
        "pandas.eval",
        "pandas.core.frame.DataFrame.eval",
        "pandas.core.arrays.categorical.Categorical",
        "subprocess.Popen",
        "datetime.datetime",
        "mine.Clip",
    ],
)
def test_what_is_not_allowed_is_refused_by_its_full_name(
    forge: Any, refusal: Callable[[bytes], str], name: str
) -> None:
    for module, _, rest in ((name.rpartition(".")), (name.partition("."))):
        assert f"names {name}, which is not opened" in refusal(forge(forge.Named(module, rest)))


def test_persistent_ids_and_outside_buffers_are_refused(refusal: Callable[[bytes], str]) -> None:
    assert "kept elsewhere" in refusal(b"\x80\x02X\x01\0\0\0aQ.")
    assert "kept elsewhere" in refusal(b"Pa\n.")
    array = pickle.dumps(np.zeros(3), 5, buffer_callback=lambda buffer: False)
    assert "outside of the file" in refusal(array)


LONGDOUBLE = np.longdouble("1e400") if np.finfo(np.longdouble).max > 1e308 else None
ALIKE = {
    "powers of two": lambda n: product((2.0 ** (61 * k) for k in range(-17, 17)), repeat=n),
    "negative numbers": lambda n: product((-1, -2), repeat=4 * n),
    "a text and its bytes": lambda n: product(("a", b"a"), repeat=4 * n),
    "texts of wide and of narrow letters": lambda n: product(("\u0101", "\1\1"), repeat=4 * n),
    "nothing, in words": lambda n: product(("", b"", 0), repeat=3 * n),
    "beyond double": lambda n: (LONGDOUBLE * number for number in range(1, 30**n)),
}


@pytest.mark.parametrize("attack", sorted(ALIKE))
@pytest.mark.parametrize(
    "pack", [dict.fromkeys, set, frozenset, lambda keys: OrderedDict.fromkeys(keys)]
)
def test_keys_of_which_any_number_hash_alike_are_refused(
    refusal: Callable[[bytes], str], attack: str, pack: Callable[[Any], object]
) -> None:
    """As keys of a dict n of them take n * n steps: seconds for a file of some 100 kB."""
    if attack == "beyond double" and LONGDOUBLE is None:
        pytest.skip("this machine's long doubles are doubles")
    keys = list(ALIKE[attack](2))
    assert len(keys) > 200
    assert len(set(map(hash, keys))) == 1
    assert "as the key of a dict or element of a set" in refusal(pickle.dumps(pack(keys)))


def test_of_the_numbers_that_may_be_keys_few_hash_alike() -> None:
    powers = [2.0 ** (61 * k) for k in range(-17, 16)]
    whole = [one for k in range(8) for one in (1 + k * (2**61 - 1), -1 - k * (2**61 - 1))]
    keys = {*powers, *whole, np.float32(0.5), np.float64(0.25), np.int64(7), "a", b"a", None}
    assert unpickled(pickle.dumps(keys), place="keys") == keys


def test_of_the_pairs_that_may_be_keys_few_hash_alike() -> None:
    parts = (-2, -1, 0, 1, 2**24 - 1, "", b"", "a", b"a", "\u0101", "\1\1", None)
    keys = set(product(parts, repeat=2))
    assert unpickled(pickle.dumps(keys), place="keys") == keys
    assert max(Counter(map(hash, keys)).values()) <= 9
    # Whole numbers: the hash is taken apart, so that all pairs are looked at without making them.
    mask, (shift, odd, start) = 2**64 - 1, (31, 0x9E3779B185EBCA87, 0x27D4EB2F165667C5)
    factor = 0xC2B2AE3D27D4EB4F
    first = np.arange(1 - 2**20, 2**20).view(np.uint64)  # 24 bits as well, in 10 seconds
    mixed = np.uint64(start) + first * np.uint64(factor)
    mixed = ((mixed << np.uint64(shift)) | (mixed >> np.uint64(64 - shift))) * np.uint64(odd)
    needed = np.sort(mixed * np.uint64(pow(factor, -1, 2**64)))
    assert np.diff(needed).min() > 2**21  # no second part makes up for another first one
    last = (int(mixed[0]) + 5 * factor) & mask
    last = ((last << shift | last >> 64 - shift) * odd + (2 ^ start ^ 3527539)) & mask
    assert hash((1 - 2**20, 5)) & mask == last
