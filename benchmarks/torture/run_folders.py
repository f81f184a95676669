"""Runs that are killed, have no room, or find their folder damaged; all must end with equal bits.

Each kind compares with an undisturbed run: a difference that is not told is "lost".
"""

import ctypes
import json
import os
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
from mutate import json_value, mutated_bytes
from trial import Ended, Place

from continual_mm.data.pack import write_pack

SCENARIO = """\
dataset = "p.npz"
space = { dim = 8, clusters = 3 }
training = { steps = 9, batch_size = 8, learning_rate = 0.01, evaluate_every = 4 }
stage = [{ add = ["video", "audio"] }, { add = ["text"], pairs = ["video-text"] }]
"""
STRATEGIES = ("replay", "ewc", "naive")
OPTIONS = ("--device", "cpu", "--threads", "1", "--checkpoint-every", "3")
EQUAL = ("scores.json", "definition.json", "ranks/*.npz", "checkpoints/stage-?/*.safetensors")
"""What a run leaves bit for bit, however it came to its end."""
_BESIDE = {"seconds", "difference"}
"""Keys of a compared strategy that depend on the clock, and on other runs."""


@dataclass(frozen=True, slots=True)
class Original:
    """A folder with a pack, a scenario and finished runs, what these hold, and what one took."""

    folder: Path
    results: dict[str, bytes]
    seconds: float


def killed(place: Place) -> Iterator[str]:
    """Kill a run at random moments, and let it end."""
    rng, original = place.rng, _original(place.folder.parent)
    _copy(original, place, runs=False)
    strategy, board = rng.choice(STRATEGIES), rng.choice(((), ("--no-board",)))
    for _ in range(rng.choice((1, 2, 3))):
        _run(place, strategy, *board, kill_after=rng.uniform(0.0, original.seconds))
    place.command("status", "runs")
    yield from _finished(place, original, strategy)


def without_room(place: Place) -> Iterator[str]:
    """Run where the disk or a file is full after some bytes, and go on where there is room."""
    rng, original = place.rng, _original(place.folder.parent)
    _copy(original, place, runs=False)
    strategy, size = rng.choice(STRATEGIES), int(2 ** rng.uniform(10, 19))
    runs = place.folder / "runs"
    runs.mkdir()
    if rng.random() < 0.5 and os.geteuid() == 0:
        with _small_disk(runs, size):
            ended = _run(place, strategy)
            yield from _told(place, ended)
            shutil.copytree(runs, place.folder / "kept")
        runs.rmdir()
        (place.folder / "kept").rename(runs)
    else:
        limits = {resource.RLIMIT_FSIZE: size}
        ended = place.command("run", "two.toml", "--strategy", strategy, *OPTIONS, limits=limits)
        yield from _told(place, ended)
    yield from _finished(place, original, strategy)


def damaged(place: Place) -> Iterator[str]:
    """Damage files of a finished or an unfinished run, look at it, and run it again."""
    rng, original = place.rng, _original(place.folder.parent)
    _copy(original, place, runs=True)
    strategy = rng.choice(STRATEGIES)
    folder = place.folder / "runs" / "two" / strategy / "seed-0"
    if rng.random() < 0.5:
        (folder / "cost.json").unlink()
        shutil.rmtree(folder / "checkpoints" / "stage-2")
    outside = place.folder / "outside"
    outside.mkdir()
    (outside / "precious").write_text("not ours", encoding="utf-8")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in rng.sample(files, rng.choice((1, 1, 2, 4))):
        _damage(path, outside, rng)
    place.command("status", "runs")
    place.command("compare", "runs")
    _run(place, strategy)
    found = place.command("compare", "runs", "--format", "json")
    if [path.name for path in outside.iterdir()] != ["precious"] or (
        (outside / "precious").read_text(encoding="utf-8") != "not ours"
    ):
        yield "lost"
    if found.code == 0 and _told_otherwise(found, original):
        yield "lost"


def _run(place: Place, strategy: str, *options: str, kill_after: float | None = None) -> Ended:
    words = ("run", "two.toml", "--strategy", strategy, *OPTIONS, *options)
    return place.command(*words, kill_after=kill_after)


def _finished(place: Place, original: Original, strategy: str) -> Iterator[str]:
    """Let a run end; lost is what differs from the original then."""
    ended = _run(place, strategy)
    mine = f"two/{strategy}/"
    expected = {name: value for name, value in original.results.items() if name.startswith(mine)}
    if ended.code or _results(place.folder) != expected:
        yield "lost"


def _told(place: Place, ended: Ended) -> Iterator[str]:
    """A run without room says so, and so does its status, if there is a folder."""
    shown = place.command("status", "runs", "--format", "json")
    if ended.code == 0:
        return
    if "cannot be written" not in ended.text:
        yield "lost"
    begins = shown.text.find("[")
    for run in json.loads(shown.text[begins:]) if begins >= 0 else []:
        if run["state"] != "failed" or "cannot be written" not in run["error"]:
            yield "lost"


def _told_otherwise(found: Ended, original: Original) -> bool:
    """Whether a comparison says anything else of a run than that of the undisturbed ones did."""
    now, before = (
        {
            row["strategy"]: {key: row[key] for key in row.keys() - _BESIDE}
            for row in json.loads(text)["rows"]
        }
        for text in (found.text, original.results["comparison"])
    )
    return any(row != before[strategy] for strategy, row in now.items())


def _damage(path: Path, outside: Path, rng: Random) -> None:
    """Change, cut, remove or replace a file."""
    content, how = path.read_bytes(), rng.randrange(8)
    path.unlink()
    if how <= 2:
        path.write_bytes(mutated_bytes(content, rng))
    elif how == 3 and path.suffix == ".json":
        value = json.loads(content)
        _change(value, rng)
        path.write_text(json.dumps(value), encoding="utf-8", errors="surrogatepass")
    elif how == 4:
        path.write_bytes(b"")
    elif how == 5:
        path.symlink_to(outside / rng.choice(("precious", "new")))
    elif how == 6:
        rng.choice((os.mkfifo, os.mkdir))(path)


def _change(value: object, rng: Random) -> None:
    """Change one value somewhere in a JSON value."""
    while isinstance(value, dict | list) and value:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = rng.choice(keys)
        inner = value[key]
        if not (isinstance(inner, dict | list) and inner) or rng.random() < 0.1:
            if isinstance(inner, float) and rng.random() < 0.5:
                value[key] = rng.random()
            else:
                value[key] = json_value(rng)
            return
        value = inner


@contextmanager
def _small_disk(folder: Path, size: int) -> Iterator[None]:
    """A disk of so many bytes, at a folder; as root only."""
    system = ctypes.CDLL(None, use_errno=True)
    if system.mount(b"none", os.fsencode(folder), b"tmpfs", 0, f"size={size}".encode()):
        raise OSError(ctypes.get_errno(), "no small disk can be had", str(folder))
    try:
        yield
    finally:
        system.umount2(os.fsencode(folder), 2)  # MNT_DETACH


def _copy(original: Original, place: Place, *, runs: bool) -> None:
    ignored = None if runs else shutil.ignore_patterns("runs")
    shutil.copytree(original.folder, place.folder, dirs_exist_ok=True, ignore=ignored)
    place.guarded = False  # runs change their folders; what may not change is checked here


def _results(folder: Path) -> dict[str, bytes]:
    runs = folder / "runs"
    found = [path for pattern in EQUAL for path in runs.rglob(pattern)]
    return {str(path.relative_to(runs)): path.read_bytes() for path in found}


@cache
def _original(root: Path) -> Original:
    """Made once in every process that carries out trials."""
    folder = root / f"original-{os.getpid()}"
    folder.mkdir()
    (folder / "two.toml").write_text(SCENARIO, encoding="utf-8")
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((90, 5))
    names = ("video", "audio", "text")
    arrays = {name: shared @ rng.standard_normal((5, 6)) for name in names}
    items = {"ids": np.arange(90).astype(str), "split": np.repeat([0, 1, 2], 30)}
    write_pack(folder / "p.npz", {**arrays, **items})
    place = Place(folder, Random(0))
    seconds = 0.0
    for strategy in STRATEGIES:
        begun = time.monotonic()
        ended = _run(place, strategy)
        seconds = max(seconds, time.monotonic() - begun)
        if ended.code:
            raise RuntimeError(f"the undisturbed run failed: {ended.text}")
    compared = place.command("compare", "runs", "--format", "json")
    results = _results(folder)
    if not results:
        raise RuntimeError("the undisturbed runs left nothing")
    return Original(folder, {**results, "comparison": compared.text.encode()}, seconds)
