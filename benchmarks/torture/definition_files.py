"""Mutated scenario and strategy files, on which definitions are shown, validated and trained."""

import os
import re
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
from mutate import mutated_bytes, toml_value
from trial import Place

from continual_mm.data.pack import write_pack
from continual_mm.definitions.catalog import DEFINITION_KINDS, shipped

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


def trial(place: Place) -> None:
    """A definition with a change or several, shown, validated or trained."""
    rng = place.rng
    _beside(place.folder)
    scenario = rng.random() < 0.6
    if scenario:
        text = SCENARIO if rng.random() < 0.7 else rng.choice(_shipped("scenarios"))
    else:
        text = rng.choice(_shipped("strategies"))
    path = place.folder / "stage.toml"
    path.write_bytes(_changed(text, rng))
    command = rng.choice(("validate", "validate", "show", "run"))
    if command != "run":
        place.command(command, path.name)
    elif scenario:
        place.command("run", path.name, "--set", "training.steps=2", "--no-board")
    else:
        (place.folder / "mine.toml").write_text(SCENARIO, encoding="utf-8")
        place.command("run", "mine.toml", "--strategy", path.name, "--no-board")


@cache
def _shipped(kind: str) -> tuple[str, ...]:
    known = next(one for one in DEFINITION_KINDS if one == kind)
    return tuple(entry.path.read_text(encoding="utf-8") for entry in shipped(known))


def _changed(text: str, rng: Random) -> bytes:
    """A text with a value, a key, or bytes changed."""
    if rng.random() < 0.25:
        return mutated_bytes(text.encode(), rng)
    lines = text.splitlines()
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(lines) + 1)
        if at == len(lines) or "=" not in lines[at] or rng.random() < 0.2:
            lines.insert(at, _new_line(rng))
        else:
            lines[at] = re.sub(r"=.*", lambda _: f"= {toml_value(rng)}", lines[at], count=1)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _new_line(rng: Random) -> str:
    key = rng.choice(
        ("dim", "dataset", "start", "rank", "a.b.c", '"\\u0000"', "x" * 500, "tower.video.weights")
    )
    table = rng.choice(("[space]", "[[stage]]", "[memory]", "[tower.video]", "[x.y]", "[[space]]"))
    many = "\n".join(f"key_{number} = 1" for number in range(3000))
    return rng.choice((f"{key} = {toml_value(rng)}", table, f"{table}\n{many}", "}", '"""'))


def _beside(folder: Path) -> None:
    """What the names in a mutated file may stand for."""
    write_pack(folder / "p.npz", _arrays())
    (folder / "folder").mkdir()
    (folder / "link").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")


@cache
def _arrays() -> dict[str, np.ndarray]:
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
    }
