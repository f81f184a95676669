"""What would run a program is refused and never run; no small file takes much memory or time."""

import copyreg
import io
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from contextlib import suppress
from itertools import product

import numpy as np
import pytest
import torch

from continual_mm.system.errors import InputError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def in_an_array(target):
    array = np.empty(2, dtype=object)
    array[:] = [Malicious(target)] * 2
    return array


def by_a_dotted_name(f, target):
    name = b"\x80\x04\x8c\x02os\x8c\x0dpath.os.mkdir\x93"
    return name + b"X" + struct.pack("<I", len(target)) + target.encode() + b"\x85R."


def by_eval(module):
    return lambda f, t: f.Made(f"{module}.eval", f"__import__('os').mkdir({t!r})")


def in_a_tensor(f, target):
    rebuild = "torch._utils._rebuild_tensor_v2"
    return f.Made(rebuild, f.within(Malicious(target)), 0, (1,), (1,), False, {})


ATTACKS = {
    **{f"call, protocol {one}": lambda f, t, p=one: pickle.dumps(Malicious(t), p)
       for one in PROTOCOLS},
    "eval": by_eval("builtins"),
    "Python 2's name of eval": by_eval("__builtin__"),
    "INST": lambda f, t: f"(S{t!r}\nios\nmkdir\n.".encode(),
    "OBJ": lambda f, t: f"(cos\nmkdir\nS{t!r}\no.".encode(),
    "dotted name": by_a_dotted_name,
    "behind data": lambda f, t: pickle.dumps([{"id": "a", "2d": np.zeros(3)}, Malicious(t)]),
    "in an array": lambda f, t: pickle.dumps([{"audio": in_an_array(t)}]),
    "in a tensor": in_a_tensor,
    "in a file of torch": lambda f, t: f.saved(Malicious(t), zipped=True),
    "in an old file of torch": lambda f, t: f.saved(Malicious(t), zipped=False),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_pickle_is_refused_and_never_run(forge, refusal, tmp_path, monkeypatch, attack):
    # A variable with which people make old programs run.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    target = tmp_path / "was-run"
    hostile = forge.pickled(ATTACKS[attack](forge, str(target)))
    assert "which is not opened: it could run anything" in refusal(hostile)
    assert not target.exists()
    # Where it is trusted it runs: the test would see an attack that works.
    with suppress(Exception):
        if "file" in attack:
            torch.load(io.BytesIO(hostile), weights_only=False)
        else:
            pickle.loads(hostile)
    assert target.exists()


def test_extension_codes_are_refused_even_if_a_program_registered_them(refusal, tmp_path):
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


NAMES = """
os.system os.popen os.execv posix.system nt.system subprocess.Popen subprocess.check_output
pty.spawn builtins.eval builtins.exec builtins.compile builtins.open builtins.getattr
builtins.setattr builtins.__import__ builtins.type builtins.map builtins.object
builtins.memoryview builtins.breakpoint __builtin__.execfile __builtin__.apply __builtin__.file
importlib.import_module runpy.run_path timeit.timeit code.InteractiveInterpreter pdb.run
bdb.Bdb.run cProfile.run trace.Trace doctest.debug_script ctypes.CDLL cffi.FFI
types.FunctionType types.CodeType marshal.loads pickle.loads _pickle.loads dill.loads
cloudpickle.loads joblib.load shelve.open operator.attrgetter operator.methodcaller
functools.partial functools.reduce itertools.starmap copyreg._reconstructor copyreg.__newobj__
copyreg.add_extension pkgutil.resolve_name pydoc.pipepager pydoc.locate webbrowser.open
shutil.rmtree pathlib.Path tempfile.NamedTemporaryFile socket.create_connection
urllib.request.urlopen http.client.HTTPConnection logging.config.listen
multiprocessing.util.spawnv_passfds multiprocessing.reduction.DupFd threading.Thread
gc.get_objects sys.modules sys.settrace inspect.stack collections.Counter
collections.OrderedDict.fromkeys collections.namedtuple datetime.datetime numpy.load
numpy.fromfile numpy.memmap numpy.matrix numpy.DataSource numpy.ndarray.__class__
numpy.frombuffer numpy.core.multiarray.fromfile numpy._core.multiarray.array
numpy.testing._private.utils.runstring numpy.ma.core._mareconstruct
numpy.random._pickle.__generator_ctor numpy.f2py.crackfortran.myeval torch.load
torch.serialization.load torch.hub.load torch.jit.load torch.zeros torch.storage.UntypedStorage
torch._utils._rebuild_wrapper_subclass torch._utils._rebuild_sparse_tensor
torch._tensor._rebuild_from_type_v2 torch.utils.collect_env.run
torch._inductor.codecache.compile_file torch.ops.load_library pandas.eval
pandas.core.frame.DataFrame pandas.core.frame.DataFrame.eval mine.Clip pandas.read_pickle
"""


@pytest.mark.parametrize("name", NAMES.split())
def test_what_is_not_allowed_is_refused_by_its_full_name(forge, refusal, name):
    message = f"names {name}, which is not opened"
    for module, _, rest in (name.rpartition("."), name.partition(".")):
        assert message in refusal(f"c{module}\n{rest}\n.".encode())
        assert message in refusal(f"(i{module}\n{rest}\n.".encode())
        texts = b"".join(b"\x8c" + bytes([len(one)]) + one.encode() for one in (module, rest))
        assert message in refusal(b"\x80\x04" + texts + b"\x93.")


def test_naming_a_module_does_not_import_it(refusal, tmp_path, monkeypatch):
    (tmp_path / "was_imported.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert "names was_imported.any" in refusal(b"cwas_imported\nany\n.")
    assert "was_imported" not in sys.modules


def test_a_name_is_shown_without_what_steers_a_terminal(forge, refusal):
    message = refusal(forge(forge.Named("mine\x1b[2J." + "x" * 10_000)))
    assert "mine\\x1b[2J.xxx" in message
    assert message.isprintable()
    assert len(message) < 500


def test_persistent_ids_and_outside_buffers_are_refused(refusal):
    assert "kept elsewhere" in refusal(b"\x80\x02X\x01\0\0\0aQ.")
    assert "kept elsewhere" in refusal(b"Pa\n.")
    array = pickle.dumps(np.zeros(3), 5, buffer_callback=lambda buffer: False)
    assert "outside of the file" in refusal(array)
    assert "outside of the file" in refusal(b"\x80\x05C\x01a\x98.")


def test_python_has_no_instruction_that_was_not_reviewed():
    assert pickle.HIGHEST_PROTOCOL == 5
    assert len(pickletools.opcodes) == 68


ALLOWED = """
builtins.bytes builtins.bytearray builtins.set builtins.frozenset builtins.list builtins.dict
builtins.int builtins.str _codecs.encode collections.OrderedDict collections.defaultdict
numpy.ndarray numpy.dtype numpy.core.multiarray._reconstruct numpy._core.multiarray.scalar
numpy.core.numeric._frombuffer torch.Size torch.FloatStorage torch._utils._rebuild_tensor_v2
torch._utils._rebuild_parameter torch.storage._load_from_bytes
"""
WRONG = (1, 2**40, -1, 2**70, 1.5, "os", b"os", [[1]], [2**70], {"a": 1}, (1, 2), {1}, True)


@pytest.mark.parametrize("name", ALLOWED.split())
def test_what_is_allowed_gives_plain_values_or_nothing_whatever_it_is_given(forge, opened, name):
    """One and two arguments of every kind, in each of the three ways to call."""
    plain = (bytes, bytearray, set, frozenset, dict, tuple)
    ends = forge(forge.Named(name))[2:-1]
    for arguments in ((), *product(WRONG), *product(WRONG, WRONG[:9])):
        made = forge(arguments, 2)[2:-1]
        calls = [ends + made + b"R", ends + made + b"\x81", ends + made + b"}\x92"]
        for call in calls:
            try:
                read = opened(b"\x80\x04" + call + b".")
            except InputError:
                continue
            assert type(read) in plain or (name, type(arguments[0])) == ("numpy.dtype", str)
            assert sys.getsizeof(read) < 500


def build(f, thing, state):
    return b"\x80\x02" + f(thing)[2:-1] + f(state)[2:-1] + b"b."


PLAIN = ([], {}, {1}, frozenset(), (), "os.system", 1)
KINDS = {
    **{type(one).__name__: lambda f, one=one: one for one in PLAIN},
    "class": lambda f: f.ndarray,
    "array": lambda f: f.array((1,), f.floats, b"\0" * 4),
    "dtype": lambda f: f.floats,
    "unfinished array": lambda f: f.Made(f.reconstruct, f.ndarray, (0,), b"b"),
    "tensor": lambda f: f.tensor((2,), (1,)),
}
CHANGES = {
    "attributes": (b"}X\x01\0\0\0aK\x01sb", ()),
    "slots": (b"N}X\x08\0\0\0__call__K\x01s\x86b", ()),
    "append": (b"K\x01a", ("list",)),
    "appends": (b"(K\x01K\x02e", ("list",)),
    "item": (b"K\x00K\x01s", ("dict",)),
    "items": (b"(K\x00K\x01u", ("dict",)),
    "elements": (b"(K\x01\x90", ("set",)),
    "call": (b"(K\x01tR", ()),
    "new": (b")\x81", ()),
    "new with keywords": (b")}\x92", ()),
}


@pytest.mark.parametrize(("kind", "change"), product(KINDS, CHANGES))
def test_only_containers_are_changed_and_nothing_is_called(forge, opened, refusal, kind, change):
    instructions, changed = CHANGES[change]
    data = b"\x80\x02" + forge(KINDS[kind](forge))[2:-1] + instructions + b"."
    if kind in changed:
        opened(data)
    else:
        refusal(data)


def hidden(f, code, order, *sizes):
    """A dtype whose state has fields of objects, which NumPy would take from bytes as pointers."""
    return f.dtype(code, 3, order, None, ("a",), {"a": (f.objects, 0)}, *sizes)


FROMBUFFER = "numpy.core.numeric._frombuffer"
FLOAT = b"\0" * 4
MISUSES = {
    "structured dtype": lambda f: hidden(f, "V8", "|", 8, 1, 0),
    "flagged dtype": lambda f: hidden(f, "f8", "<", 8, 1, 0),
    "subarray dtype": lambda f: f.dtype("V8", 3, "|", (f.floats, (2,)), *f.numbers[1:]),
    "dates": lambda f: f.dtype("M8[ns]"),
    "names of fields": lambda f: f.dtype("f4,O"),
    "endless dtype": lambda f: f.dtype("U999999999"),
    "bytes as objects": lambda f: f.array((1,), f.objects, b"\0" * 8),
    "objects from a buffer": lambda f: f.Made(FROMBUFFER, b"\0" * 8, f.objects, (1,), "C"),
    "object as a scalar": lambda f: f.Made("numpy.core.multiarray.scalar", f.objects, b"\0" * 8),
    "another class": lambda f: f.Made(f.reconstruct, f.Named("builtins.list"), (0,), b"b"),
    "too little data": lambda f: f.array((1000,), f.floats, FLOAT),
    "too much data": lambda f: f.array((1,), f.floats, b"\0" * 8),
    "a list for bytes": lambda f: f.array((1,), f.floats, [0] * 4),
    "negative shape": lambda f: f.array((-1, -1), f.floats, FLOAT),
    "shape of fractions": lambda f: f.array((1.0,), f.floats, FLOAT),
    "endless shape": lambda f: f.array((2**40, 2**40), f.floats, b""),
    "array of no values and all sizes": lambda f: f.array((0, 2**62, 2**62), f.floats, b""),
    "too many axes": lambda f: f.array((1,) * 70, f.floats, FLOAT),
    "fewer objects than claimed": lambda f: f.array((3,), f.objects, [1]),
    "unfinished dtype": lambda f: f.array((1,), f.Made("numpy.dtype", "f4"), FLOAT),
    "negative strides": lambda f: f.Made(FROMBUFFER, b"\0" * 8, f.floats, (2,), "K", (-1,)),
    "axes that are not there": lambda f: f.Made(FROMBUFFER, b"\0" * 8, f.floats, (2,), "K", (7,)),
    "call of a class": lambda f: f.Made(f.ndarray, (2**40,)),
    "call of text": lambda f: f.Made("os.system", "true"),
    "attributes of an array": lambda f: build(f, f.array((1,), f.floats, FLOAT), {"shape": 1}),
    "a second state": lambda f: build(f, f.array((1,), f.floats, FLOAT), (1, (1,), 2, False, b"")),
    "bytearray of a size": lambda f: f.Made("builtins.bytearray", 2**40),
    "other codec": lambda f: f.Made("_codecs.encode", "a", "rot13"),
    "big tensor": lambda f: f.tensor((2**40,), (0,)),
    "tensor beyond its storage": lambda f: f.tensor((4,), (2,)),
    "tensor before its storage": lambda f: f.tensor((1,), (1,), offset=-1),
    "tensor with negative strides": lambda f: f.tensor((2,), (-1,)),
    "tensor of endless numbers": lambda f: f.tensor((2**70,), (2**70,)),
    "tensor of no values and all sizes": lambda f: f.tensor((0, 2**62, 2**62), (1, 1, 1)),
    "fewer strides than axes": lambda f: f.tensor((2, 2), (1,)),
    "zip in a tensor": lambda f: f.within(torch.zeros(1), zipped=True),
    "tensor for a storage": lambda f: f.within(torch.zeros(1)),
    "array for a storage": lambda f: f.within(np.zeros(2)),
    "storage in a storage": lambda f: f.within(f.within(torch.zeros(1))),
}


@pytest.mark.parametrize("misuse", sorted(MISUSES))
def test_what_is_allowed_cannot_be_misused(forge, refusal, misuse):
    assert "MemoryError" not in refusal(forge.pickled(MISUSES[misuse](forge)))


def test_arrays_of_objects_within_each_other_are_refused(forge, opened, refusal):
    """NumPy frees them by recursion: 10,000 of them overflowed the stack of the whole process."""
    things = (forge.objects, forge.Named(forge.reconstruct), forge.ndarray)
    names = b"".join(
        forge(one)[2:-1] + b"r" + struct.pack("<I", place) + b"0"
        for place, one in enumerate(things, 1)
    )
    level = b"r\x09\0\0\x000j\x02\0\0\0j\x03\0\0\0K\0\x85C\x01b\x87R"
    level += b"(K\1K\1\x85j\x01\0\0\0\x89]j\x09\0\0\0atb"
    assert opened(b"\x80\x03" + names + b"N" + level + b".").tolist() == [None]
    message = refusal(b"\x80\x03" + names + b"N" + level * 10_000 + b".")
    assert "array of objects in another" in message


LONGDOUBLE = np.longdouble("1e400") if np.finfo(np.longdouble).max > 1e308 else None
ALIKE = {
    "multiples of the modulus": lambda: (k * (2**61 - 1) for k in range(100, 400)),
    "tuples of powers of two": lambda: product((2.0 ** (61 * k) for k in range(-8, 9)), repeat=2),
    "tuples of negative numbers": lambda: product((-1, -2), repeat=8),
    "tuples of a text and its bytes": lambda: product(("a", b"a"), repeat=8),
    "tuples of wide and of narrow letters": lambda: product(("\u0101", "\1\1"), repeat=8),
    "beyond double": lambda: (LONGDOUBLE * number for number in range(1, 300)),
    "complex numbers": lambda: (np.complex128(complex(-1_000_003 * k, k)) for k in range(300)),
}


@pytest.mark.parametrize("attack", sorted(ALIKE))
@pytest.mark.parametrize(
    "pack", [dict.fromkeys, set, frozenset, lambda keys: OrderedDict.fromkeys(keys)]
)
def test_keys_of_which_any_number_hash_alike_are_refused(refusal, attack, pack):
    """As keys of a dict n of them take n * n steps: seconds for a file of some 100 kB."""
    if attack == "beyond double" and LONGDOUBLE is None:
        pytest.skip("this machine's long doubles are doubles")
    keys = list(ALIKE[attack]())
    assert len(keys) > 200
    assert len(set(map(hash, keys))) == 1
    for protocol in (0, 4):
        message = refusal(pickle.dumps(pack(keys), protocol))
        assert "as the key of a dict or element of a set" in message


def test_of_the_numbers_that_may_be_keys_few_hash_alike(opened):
    powers = [2.0 ** (61 * k) for k in range(-17, 16)]
    whole = [one for k in range(8) for one in (1 + k * (2**61 - 1), -1 - k * (2**61 - 1))]
    keys = {*powers, *whole, np.float32(0.5), np.float64(0.25), np.int64(7), "a", b"a", None}
    assert opened(pickle.dumps(keys)) == keys
    assert opened(pickle.dumps({2**64 - 1, -(2**64) + 1})) == {2**64 - 1, -(2**64) + 1}


def copies(call, part, times=5000):
    """A value that is in the file once, and copied again and again."""
    return b"\x80\x02" + part + b"q\0" + call + b"q\1(" + b"h\1h\0\x85R" * times + b"t."


def claim(key, count):
    """A persistent id of a storage."""
    name = b"X" + struct.pack("<I", len(key)) + key
    kind = b"(X\x07\0\0\0storagectorch\nFloatStorage\n"
    return kind + name + b"X\x03\0\0\0cpuJ" + struct.pack("<i", count) + b"tQ"


def zip_of(*members, method=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return stream.getvalue()


def in_bytes(data):
    return b"B" + struct.pack("<I", len(data)) + data


NUMBERS = b"](" + b"".join(b"J" + struct.pack("<i", i) for i in range(2000)) + b"e"
PAIRS = b"](" + b"".join(b"J" + struct.pack("<i", i) + b"N\x86" for i in range(2000)) + b"e"
TEXT = b"X" + struct.pack("<I", 20_000) + b"a" * 20_000
BYTES = in_bytes(b"a" * 20_000)

BOMBS = {
    # A place in the memo for which Python's own machine reserves 32 GB.
    "memo": lambda f: b"\x80\x02Nr\xff\xff\xff\x7f.",
    "frame": lambda f: b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.",
    "frames": lambda f: b"\x80\x04" + (b"\x95" + struct.pack("<Q", 2**60)) * 1000 + b"N.",
    **{
        f"length of {code!r}, {size.hex()}": lambda f, c=code, s=size: b"\x80\x05" + c + s + b"a."
        for code, size in (
            *((code, struct.pack("<Q", 2**34)) for code in (b"\x8d", b"\x8e", b"\x96")),
            *((code, struct.pack("<Q", 2**62)) for code in (b"\x8d", b"\x8e", b"\x96")),
            *((code, struct.pack("<I", 2**32 - 1)) for code in (b"B", b"X")),
            *((code, struct.pack("<i", 2**31 - 1)) for code in (b"T", b"\x8b")),
            *((code, struct.pack("<i", -1)) for code in (b"T", b"\x8b")),
        )
    },
    "copies, set": lambda f: copies(b"c__builtin__\nset\n", NUMBERS),
    "copies, frozenset": lambda f: copies(b"c__builtin__\nfrozenset\n", NUMBERS),
    "copies, ordered": lambda f: copies(b"ccollections\nOrderedDict\n", PAIRS),
    "copies, bytearray": lambda f: copies(b"c__builtin__\nbytearray\n", BYTES, 50_000),
    "copies, codec": lambda f: copies(b"c_codecs\nencode\n", TEXT, 50_000).replace(
        b"h\1h\0\x85R", b"h\1h\0U\6latin1\x86R"
    ),
    # Hashing it would overflow the stack of Python itself.
    "depth": lambda f: b"\x80\x02}N" + b"\x85" * 100_000 + b"Ns.",
    "depth of lists": lambda f: b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "digits": lambda f: b"I" + b"9" * 100_000 + b"\n.",
    "text of escapes": lambda f: b"S'" + b"\\x41" * 100_000 + b"'\n.",
    "old storages": lambda f: f.saved([torch.arange(4.0)], zipped=False).replace(
        b"K\x04Nt", b"J" + struct.pack("<i", 2**31 - 1) + b"Nt"
    ),
    "zipped storage": lambda f: zip_of(
        ("a/data.pkl", b"\x80\x02" + claim(b"0", 2**31 - 1) + b"."), ("a/data/0", b"aaaa")
    ),
    "storages of one name": lambda f: zip_of(
        ("a/data.pkl", b"\x80\x02" + claim(b"0", 1) + claim(b"0", 2**30) + b"."),
        ("a/data/0", b"aaaa"),
    ),
    "zip that claims": lambda f: zip_of(("a/data.pkl", b"N." * 500)).replace(
        struct.pack("<I", 1000) * 2, struct.pack("<I", 2**31 - 1) * 2
    ),
    "compressed zip": lambda f: zip_of(
        ("a/data.pkl", b"N" * 10**8 + b"."), method=zipfile.ZIP_DEFLATED
    ),
    "copies, storage": lambda f: copies(
        b"ctorch.storage\n_load_from_bytes\n", in_bytes(f.saved(f.storage(5000), zipped=False))
    ),
    "expanded": lambda f: f.saved([torch.zeros(1).expand(2**33)], zipped=True),
    "expanded, old": lambda f: f.saved([torch.zeros(1).expand(2**33)], zipped=False),
}

PROGRAM = """
import resource, sys, time
from pathlib import Path
import torch
from continual_mm.preparation.formats.pickles import load_pickle
from continual_mm.system.errors import InputError

size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 2**28, resource.RLIM_INFINITY))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sorted(Path(sys.argv[1]).iterdir()):
    start = time.perf_counter()
    try:
        message = f"read {type(load_pickle(path)).__name__}"
    except InputError as error:
        message = str(error)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    seconds = time.perf_counter() - start
    assert "MemoryError" not in message, message
    assert grown < 100, (message, grown)
    assert seconds < 10, (message, seconds)
    print(path.name, message, sep=": ")
"""


def test_no_small_file_takes_much_memory_or_time(forge, tmp_path):
    """In a process that has 256 MB of addresses left, and uses 100 MB of them at most."""
    for name, bomb in BOMBS.items():
        data = bomb(forge)
        assert len(data) < 1_000_000
        (tmp_path / name.replace("/", "")).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    read = [line for line in done.stdout.splitlines() if ": read" in line]
    harmless = ["depth of lists", "frame", "frames", "memo", "text of escapes"]
    assert sorted(line.partition(":")[0] for line in read) == harmless


@pytest.mark.parametrize("count", [5, 2**20, 2**31 - 1])
def test_a_storage_has_the_size_that_is_there(forge, refusal, count):
    old = forge.saved([torch.arange(4.0)], zipped=False)
    assert old.count(b"K\x04Nt") == 1
    why = "another size than" if count < len(old) / 4 else "more than its size"
    changed = b"J" + struct.pack("<i", count) + b"Nt"
    assert why in refusal(old.replace(b"K\x04Nt", changed))
    assert "another size" in refusal(rezipped(forge.saved([torch.arange(4.0)], zipped=True), 3))


def rezipped(data, end=None, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        members = {name: source.read(name) for name in source.namelist()}
    cut = {name: data[:end] if "/data/" in name else data for name, data in members.items()}
    return zip_of(*cut.items(), method=method)


def test_storages_whose_values_never_come_are_refused(forge, refusal):
    """Torch hands out whatever lay in that memory before."""
    whole = forge.saved([torch.arange(4.0)], zipped=False)
    start = whole.rindex(b"\x80\x02]q")
    for keys in (b"\x80\x02].", b"\x80\x02](K\x01e.", b"\x80\x02}."):
        assert "without values" in refusal(whole[:start] + keys)


def test_a_zip_leads_to_no_file_outside(refusal, tmp_path):
    (tmp_path / "secret").write_bytes(b"\0" * 4)
    for key in ("../secret", "../../secret", str(tmp_path / "secret")):
        data = zip_of(("a/data.pkl", b"\x80\x02" + claim(key.encode(), 1) + b"."))
        assert "KeyError" in refusal(data)


def test_other_zips_are_refused_as_such(forge, refusal):
    grown = rezipped(forge.saved(torch.zeros(9), zipped=True), method=zipfile.ZIP_DEFLATED)
    for data, why in (
        (grown, "compressed"),
        (zip_of(("a.npy", b"")), "did not write"),
        (zip_of(("a/data.pkl", b"N."), ("b/data.pkl", b"N.")), "did not write"),
        (zip_of(("a/data.pkl", b"N."), ("a/byteorder", b"big")), "big-endian"),
        (zip_of(("a/data.pkl", b"c__builtin__\nbytearray\n(I9999999999\ntR.")), "bytearray"),
    ):
        assert why in refusal(data)
