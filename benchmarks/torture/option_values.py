"""Sound files, and options with values that nobody means."""

import json
import shutil
from random import Random

from inputs import SCENARIO, finished_runs, make_odd_files, make_pack
from mutate import NUMBERS, TEXTS, toml_value
from trial import Place

# Not how long a command trains or how many processes it starts: those may be as large as asked.
OPTIONS = {
    "run": ("--device", "--out", "--strategy", "--set", "--seeds", "--threads", "--workers"),
    "tune": ("--metric", "--search", "--seed", "--write", "--out", "--seeds", "--set"),
    "data inspect": ("--items", "--values", "--repeats", "--picture", "--format"),
    "data vectors": ("--features", "--seed", "--to"),
    "data filter": ("--pair", "--keep", "--threshold", "--references", "--to", "--terms"),
    "compare": ("--baseline", "--protocol", "--metric", "--format"),
    "status": ("--format",),
    "export": ("--to", "--dataset", "--vectors"),
    "consolidate": ("--dim", "--to", "--dataset", "--seed", "--device"),
    "merge": ("--to", "--dataset", "--device"),
    "copy": (),
    "show": (),
    "board": ("--port",),
}
GIVEN = {
    "run": ["mine.toml", "--no-board", "--set", "training.steps=1"],
    "tune": ["mine.toml", "--strategy", "replay", "--trials", "1", "--no-board"],
    "compare": ["runs"],
    "status": ["runs"],
    "export": ["runs", "--to", "out"],
    "merge": ["runs/mine/naive/seed-0", "runs/mine/replay/seed-0", "--to", "out"],
    "consolidate": ["runs/mine/naive/seed-0", "--dim", "4"],
    "data inspect": ["p.npz"],
    "data vectors": ["p.npz"],
    "data filter": ["p.npz", "--steps", "2", "--to", "out.npz", "--pair", "video-text"],
}
ON_RUNS = ("compare", "status", "export", "merge", "consolidate")
SMALL = ("0", "1", "2", "-1", "0.5", "1e9", "99999", "", "a", "all")
KEYS = ("training.steps", "space.dim", "stage.1.add", "stage.0.x", "x.y.z", "memory.items", "a", "")


def trial(place: Place) -> None:
    """A command on sound files, one of its options or arguments odd."""
    make_odd_files(place.folder)
    make_pack(place.folder)
    (place.folder / "mine.toml").write_text(SCENARIO, encoding="utf-8")
    rng = place.rng
    command = rng.choice([*OPTIONS])
    if command in ON_RUNS:
        shutil.copytree(finished_runs(), place.folder / "runs")
    arguments = [*GIVEN.get(command, ())]
    if not arguments or rng.random() < 0.2:
        arguments[:1] = [_odd(rng)]
    for _ in range(rng.choice((0, 1, 1, 2))):
        if OPTIONS[command]:
            option = rng.choice(OPTIONS[command])
            arguments += [option, _setting(rng) if option == "--set" else _odd(rng)]
    place.command(*command.split(), *arguments)


def _odd(rng: Random) -> str:
    """A value of an option; the system takes no NUL in one, and few megabytes."""
    value = rng.choice((rng.choice(SMALL), rng.choice(TEXTS), rng.choice(NUMBERS)))
    return value.replace("\0", "")


def _setting(rng: Random) -> str:
    key = rng.choice(KEYS)
    value = rng.choice((toml_value(rng), rng.choice(SMALL), json.dumps(rng.choice(TEXTS))))
    return f"{key}={value}".replace("\0", "")
