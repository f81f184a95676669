"""Mutated packs, stores, pickles and weights, on which data is looked at and trained."""

import json
import os
import pickle
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.lib.format as npy
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from inputs import SCENARIO, arrays, make_odd_files, make_store
from mutate import json_value, mutated_bytes
from numpy.typing import NDArray
from trial import Place

HOSTILE_HEADERS = (
    "{'descr': '|O', 'fortran_order': False, 'shape': (60,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (60, 9223372036854775807), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (60, -6), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (60, 100000000), }",
    "{'descr': '<U99999999', 'fortran_order': False, 'shape': (60,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 200 + ")" * 200 + ", }",
    "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (60,), }",
    "{'descr': '<M8[ns]', 'fortran_order': False, 'shape': (60,), }",
    "__import__('os').mkdir('code-was-run')",
    "{'descr': '<f4', 'fortran_order': True, 'shape': (60, True), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (60, 1e3), }",
    "{'descr': '\\x00', 'fortran_order': False, 'shape': (60,), }",
    "",
)


class Bomb:
    """Makes the canary where a pickle of it is opened."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self._canary),)


def pack_trial(place: Place) -> None:
    """A pack with a change, looked at, validated and trained."""
    make_odd_files(place.folder)
    path, rng = place.folder / "p.npz", place.rng
    kind = rng.random()
    if kind < 0.35:
        path.write_bytes(mutated_bytes(_packed(arrays()), rng))
    elif kind < 0.8:
        path.write_bytes(_packed(_changed(place)))
    elif kind < 0.95:
        path.write_bytes(_with_members(place))
    else:
        path.symlink_to(rng.choice(("/dev/zero", "pipe", "loop", "folder", "link", "/proc/self")))
    _looked_at(place)


def store_trial(place: Place) -> None:
    """A store with a change, looked at, validated and trained."""
    make_odd_files(place.folder)
    store = Path(shutil.copytree(_sound_store(), place.folder / "store"))
    scenario = SCENARIO.replace("p.npz", "store")
    rng = place.rng
    files = sorted(path for path in store.rglob("*") if path.is_file())
    chosen = rng.choice([store / "store.json", *files])
    kind = rng.random()
    if chosen.name == "store.json" and kind < 0.6:
        said = json.loads(chosen.read_text(encoding="utf-8"))
        _change_json(said, rng)
        chosen.write_text(json.dumps(said), encoding="utf-8")
    elif kind < 0.8:
        chosen.write_bytes(mutated_bytes(chosen.read_bytes(), rng))
    elif kind < 0.85:
        folder = rng.choice([path for path in store.iterdir() if path.is_dir()])
        shutil.rmtree(folder)
        folder.symlink_to(rng.choice((folder.name, ".", "..", "nowhere", "/proc/self/fd")))
    else:
        _replaced(chosen, files, rng)
    _looked_at(place, scenario, "store")


def table_trial(place: Place) -> None:
    """A folder of tables with a change, looked at and validated."""
    make_odd_files(place.folder)
    rng, folder = place.rng, place.folder / "tables"
    folder.mkdir()
    for part in range(2):
        stream = BytesIO()
        pq.write_table(_table(rng, part), stream)
        content = stream.getvalue()
        if rng.random() < 0.4:
            content = mutated_bytes(content, rng)
        path = folder / f"{('train', 'test')[part]}-0000{part}.parquet"
        path.write_bytes(content)
        if rng.random() < 0.1:
            _replaced(path, [path], rng)
    if rng.random() < 0.2:
        (folder / rng.choice(("README.md", "dataset.py", "x.arrow", "y.csv"))).write_bytes(b"\0[")
    _looked_at(place, SCENARIO.replace("p.npz", "tables"), "tables")


def _table(rng: Random, part: int) -> pa.Table:
    """Some columns as Hugging Face's datasets have them, one or two odd."""
    count = 12
    columns: dict[str, list[Any]] = {
        "id": [f"{part}-{row}" for row in range(count)],
        "caption": ["red square"] * count,
        **{name: [[0.5, float(row), 1.0] for row in range(count)] for name in ("video", "audio")},
    }
    for _ in range(rng.choice((0, 1, 1, 2))):
        name = rng.choice([*columns, "split", "label", "\x1b[31m", "", "video_length"])
        columns[name] = [rng.choice(ODD_CELLS)] * count
        if rng.random() < 0.5:
            columns[name][0] = None
    return pa.table(columns)


ODD_CELLS: Sequence[Any] = (
    *(
        None,
        "",
        "a\0b",
        "x" * 100_000,
        -1,
        2**62,
        float("nan"),
        1e308,
        True,
        b"\x80\x04.",
        [],
        [[]],
    ),
    *([1.0], [[1.0], [1.0, 2.0]], {"a": 1}, [None], ["a"], [float("nan")] * 3, [1e300] * 3),
)


def pickle_trial(place: Place) -> None:
    """Hostile pickles and weights, converted and given to towers."""
    rng, path = place.rng, place.folder / "youcook_val_audio.pkl"
    (place.folder / "words.txt").write_text("red 1 0 1\nsquare 0 1 1\n", encoding="utf-8")
    if rng.random() < 0.5:
        path.write_bytes(_pickled(place))
        name = rng.choice((("youcook2", "--test"), ("msrvtt", "--test"), ("ucf101",)))
        place.command(
            *("data", "convert", name[0], *name[1:], path.name),
            *("--vectors", "words.txt", "--to", "out.npz"),
            *rng.choice(((), ("--skip",))),
        )
        return
    (place.folder / "p.npz").write_bytes(_packed(arrays()))
    weights = place.folder / rng.choice(("w.pt", "w.safetensors"))
    weights.write_bytes(_weights(place))
    text = f'{SCENARIO}\n[tower.video]\nkind = "linear"\nweights = "{weights.name}"\n'
    (place.folder / "mine.toml").write_text(text, encoding="utf-8")
    place.command("run", "mine.toml", "--no-board")


def _looked_at(place: Place, scenario: str = SCENARIO, name: str = "p.npz") -> None:
    (place.folder / "mine.toml").write_text(scenario, encoding="utf-8")
    command = place.rng.choice(("validate", "inspect", "run"))
    if command == "inspect":
        place.command("data", "inspect", name)
    elif command == "run":
        place.command("run", "mine.toml", "--no-board")
    else:
        place.command("validate", "mine.toml")


def _packed(columns: dict[str, NDArray[Any]]) -> bytes:
    stream = BytesIO()
    np.savez(stream, allow_pickle=True, **columns)
    return stream.getvalue()


def _changed(place: Place) -> dict[str, NDArray[Any]]:
    """The columns of a pack, one or two of them wrong."""
    rng, columns = place.rng, dict(arrays())
    for _ in range(rng.choice((1, 1, 2))):
        name = rng.choice([*columns])
        columns[name] = rng.choice(CHANGES)(columns[name], place)
        if rng.random() < 0.2:
            other = rng.choice(
                ("video_kind", "a b", "\u0000", "../x", "text_present", "é" * 99, "")
            )
            columns[other] = columns.pop(name)
    return columns


def _strange(values: NDArray[Any], place: Place) -> NDArray[Any]:
    """Values that are wrong in some rows."""
    values, rng = values.copy(), place.rng
    row = rng.randrange(len(values) or 1)
    if values.dtype.kind == "f":
        with np.errstate(all="ignore"):
            values[row] = rng.choice((np.nan, np.inf, -np.inf, 3e38, 1e-45, 0.0))
    elif values.dtype.kind == "U":
        values[row] = rng.choice(("", values[0], "\x1b[31m", "\u202e", "\ud800"[:0], "x" * 5))
    else:
        with np.errstate(all="ignore"):
            values[row] = np.array(rng.choice((-1, 7, 2**62, -(2**62)))).astype(values.dtype)
    return values


def _objects(values: NDArray[Any], place: Place) -> NDArray[Any]:
    found = np.empty(len(values), dtype=object)
    found[:] = [Bomb(place.canary)] * len(values)
    return found


def _shaped(values: NDArray[Any], place: Place) -> NDArray[Any]:
    rng = place.rng
    shapes: Sequence[Callable[[NDArray[Any]], NDArray[Any]]] = (
        lambda v: v[:0],
        lambda v: v[:-1],
        lambda v: v[..., None],
        lambda v: v.reshape(-1),
        lambda v: np.asarray(v.flat[0]),
        lambda v: v[None],
        lambda v: np.repeat(v, 2, axis=0),
        lambda v: v[:, :0] if v.ndim > 1 else v,
    )
    return rng.choice(shapes)(values)


def _typed(values: NDArray[Any], place: Place) -> NDArray[Any]:
    dtype = place.rng.choice(("f2", "f8", ">f4", "i1", "u8", "c16", "S4", "U3", "?", "M8[s]", "u1"))
    with np.errstate(all="ignore"):
        try:
            return values.astype(dtype)
        except (TypeError, ValueError):
            return np.zeros(len(values), dtype)


CHANGES = (_strange, _strange, _shaped, _typed, _objects)


def _with_members(place: Place) -> bytes:
    """A zip archive with members that are no arrays, or not what they claim."""
    rng, stream = place.rng, BytesIO(_packed(arrays()))
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        name = rng.choice(
            ("video.npy", "smell.npy", "../../x.npy", "/etc/x.npy", "a/b.npy", "\x01")
        )
        header = rng.choice(HOSTILE_HEADERS).encode().ljust(118) + b"\n"
        head = npy.magic(1, 0) + struct.pack("<H", len(header)) + header
        content = rng.choice((b"", b"\0" * 1000, b"\0" * 50_000_000, b"x" * 1440))
        archive.writestr(name, head + content)
    return stream.getvalue()


@cache
def _sound_store() -> Path:
    folder = Path.cwd() / f"store-{os.getpid()}"
    folder.mkdir()
    return make_store(folder)


def _places(said: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    items = said.items() if isinstance(said, dict) else enumerate(said)
    for key, inner in list(items):
        yield said, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def _change_json(said: Any, rng: Random) -> None:
    for _ in range(rng.choice((1, 1, 2))):
        container, key = rng.choice([*_places(said)])
        if rng.random() < 0.2:
            del container[key]
        elif isinstance(container[key], int) and rng.random() < 0.7:
            container[key] = rng.choice((0, 1, 2, 7, 59, 61, -1, 2**31, 2**62, 2**63, True))
        else:
            container[key] = json_value(rng)


def _replaced(path: Path, files: Sequence[Path], rng: Random) -> None:
    """Something else in the place of a file."""
    content = rng.choice([one.read_bytes() for one in files])
    path.unlink()
    kind = rng.randrange(6)
    if kind == 0:
        path.symlink_to(rng.choice(("/dev/zero", "/dev/full", "loop", "/etc/passwd")))
    elif kind == 1:
        os.mkfifo(path)
    elif kind == 2:
        path.mkdir()
    elif kind == 3:
        path.write_bytes(content)
    elif kind == 4:
        with path.open("wb") as file:
            file.truncate(1 << 40)


def _pickled(place: Place) -> bytes:
    """A pickle that runs code, claims too much, or is damaged."""
    rng = place.rng
    clip = {
        "2d": np.ones((3, 4), "f4"),
        "3d": np.ones((3, 4), "f4"),
        "audio": np.ones((40, 20), "f4"),
        "caption": "red square",
        "eval_caption": "red square",
        "id": "a_1",
        "video_id": "a",
    }
    sound = pickle.dumps([clip, clip], protocol=rng.randrange(5))
    canary = str(place.canary).encode()
    return rng.choice(
        (
            lambda: mutated_bytes(sound, rng),
            lambda: pickle.dumps(Bomb(place.canary), protocol=rng.randrange(5)),
            lambda: pickle.dumps([{**clip, "2d": Bomb(place.canary)}]),
            lambda: pickle.dumps([{**clip, "caption": Bomb(place.canary)}]),
            lambda: b"cos\nmkdir\n(V" + canary + b"\ntR.",
            lambda: (
                b"cbuiltins\neval\n(V__import__('os').mkdir("
                + repr(str(place.canary)).encode()
                + b")\ntR."
            ),
            lambda: b"cnumpy.core.multiarray\n_reconstruct\n(cos\nmkdir\n(V" + canary + b"\ntRtR.",
            lambda: b"(" * 100_000 + b".",
            lambda: b"]" * 50_000 + b"a" * 49_999 + b".",
            lambda: b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62),
            lambda: b"I" + b"9" * 5000 + b"\n.",
            lambda: pickle.dumps([{**clip, "2d": np.ones((3, 4), "f4")[:, :0]}]),
            lambda: pickle.dumps([{**clip, "caption": "\ud800"}]),
            lambda: pickle.dumps({"a": [[[]]]}),
            lambda: b"",
        )
    )()


def _weights(place: Place) -> bytes:
    """A file of weights that runs code, claims too much, or does not fit."""
    rng, stream = place.rng, BytesIO()
    tensors = {"map.weight": torch.zeros(16, 6), "map.bias": torch.zeros(16)}
    torch.save(tensors, stream)
    sound = stream.getvalue()
    header = {"a": {"dtype": "F32", "shape": [1 << 62, 1 << 62], "data_offsets": [0, 8]}}
    text = json.dumps(header).encode()

    def saved(value: Any) -> bytes:
        made = BytesIO()
        torch.save(value, made)
        return made.getvalue()

    return rng.choice(
        (
            lambda: mutated_bytes(sound, rng),
            lambda: saved(Bomb(place.canary)),
            lambda: saved({"map.weight": Bomb(place.canary)}),
            lambda: saved({"map.weight": torch.zeros(3)}),
            lambda: saved({"map.weight": torch.full((16, 6), float("nan"))}),
            lambda: saved({1: 2}),
            lambda: pickle.dumps(Bomb(place.canary)),
            lambda: struct.pack("<Q", 1 << 62),
            lambda: struct.pack("<Q", len(text)) + text + b"\0" * 8,
            lambda: struct.pack("<Q", 20) + b"[" * 20,
            lambda: sound,
        )
    )()
