"""Small sound inputs that trials change: a scenario, a pack, a store, clips."""

import os
import struct
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from trial import Place

from continual_mm.data.pack import write_pack
from continual_mm.data.store.writer import write_store
from continual_mm.definitions.modality import Kind, Modality

SCENARIO = """\
description = "two stages"
dataset = "p.npz"
items = "split"
positives = "paired"
standardise = true

[space]
dim = 16
clusters = 4
queue_batches = 2
width = 4

[training]
steps = 3
batch_size = 8
learning_rate = 0.001

[[stage]]
add = ["video", "audio"]

[[stage]]
add = ["text"]
pairs = ["video-text"]
steps = 2

[[protocol]]
name = "text_to_video"
query = ["text"]
gallery = ["video", "audio"]
"""


def make_odd_files(folder: Path) -> None:
    """What the names in a mutated file may stand for: a folder, links, a pipe."""
    (folder / "folder").mkdir()
    (folder / "link").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")


@cache
def arrays() -> dict[str, NDArray[Any]]:
    """The columns of a sound pack of 60 items."""
    rng = np.random.default_rng(0)
    items = 60
    return {
        "video": rng.normal(size=(items, 6)).astype(np.float32),
        "audio": rng.normal(size=(items, 5, 4)).astype(np.float32),
        "text": rng.normal(size=(items, 4, 5)).astype(np.float32),
        "text_length": rng.integers(1, 5, items),
        "ids": np.array([f"clip {number}" for number in range(items)]),
        "split": np.repeat([0, 1, 2], [40, 10, 10]),
        "text_raw": np.array([f"caption {number}" for number in range(items)]),
        "group": np.arange(items) // 3,
        "label": np.arange(items) % 4,
    }


def make_pack(folder: Path) -> Path:
    """A sound pack, ``p.npz``."""
    write_pack(folder / "p.npz", arrays())
    return folder / "p.npz"


def make_store(folder: Path) -> Path:
    """A sound store, ``store``, of two files of items."""
    layout = (
        Modality("video", Kind.VECTOR, (6,)),
        Modality("audio", Kind.TOKENS, (0, 4)),
        Modality("text", Kind.TOKENS, (0, 5)),
    )
    given = arrays()
    names = ("split", "group", "label", "text_raw", "video", "audio", "text")
    records = (
        {"ids": str(given["ids"][row]), **{name: given[name][row] for name in names}}
        for row in range(60)
    )
    plain = ({**one, "text_raw": str(one["text_raw"])} for one in records)
    write_store(plain, folder / "store", layout=layout, shard_bytes=3000)
    return folder / "store"


@cache
def finished_runs() -> Path:
    """A folder of two runs of the scenario, trained once for all trials of a process."""
    place = Place(Path.cwd() / f"runs-{os.getpid()}", Random(0))
    place.folder.mkdir()
    make_pack(place.folder)
    (place.folder / "mine.toml").write_text(SCENARIO, encoding="utf-8")
    ended = place.command("run", "mine.toml", "--strategy", "naive", "--strategy", "replay")
    if ended.code:
        raise RuntimeError(f"the scenario that trials begin with cannot be trained: {ended.text}")
    return place.folder / "runs"


def wave(rng: Random, *, seconds: float = 0.4, rate: int = 8000) -> bytes:
    """A sound WAV file."""
    count = int(seconds * rate)
    samples = struct.pack(f"<{count}h", *(rng.randrange(-9000, 9000) for _ in range(count)))
    head = struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
    body = b"WAVEfmt " + head + b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", len(body)) + body
