"""Mutated manifests, annotations and clips, of which features are extracted."""

import csv
import json
from io import StringIO
from random import Random
from typing import Any

from inputs import SCENARIO, make_odd_files, make_pack, wave
from mutate import TEXTS, json_value, mutated_bytes
from trial import Place

COLUMNS = ("id", "path", "start", "end", "text", "split", "group", "label")
RECIPES = (
    *("audio=audio", "audio=audio", "audio=audio", "text=text", "audio=audio,rate=1e308"),
    *("audio=audio/max", "audio=", "=audio", "a b=audio", "audio=audio,mels=99999999999"),
    *("audio=audio,window=-1", "video=frames:resnet18@random,rate=1e308", "audio=nothing"),
    *("video=frames:resnet18@random,rate=nan", "audio=" + "+".join(["audio"] * 3000)),
    *("video=frames:resnet18@random,rate=0", "video=frames:../../x@random", "\0=audio"),
)
ANNOTATIONS = "video,task,step,start,end\na,1,1,0,5\na,1,2,5,9\n"


def trial(place: Place) -> None:
    """A manifest, a clip, a recipe or a file of annotations that is wrong."""
    make_odd_files(place.folder)
    if place.rng.random() < 0.15:
        _annotations(place)
    else:
        _extraction(place)


def _extraction(place: Place) -> None:
    rng, folder = place.rng, place.folder
    for name in "ab":
        sound = wave(rng)
        kind = rng.random()
        if kind < 0.3:
            sound = mutated_bytes(sound, rng)
        elif kind < 0.4:
            rate = rng.choice((1, 0, 7, 4_294_967_295, 1_000_000_000))
            sound = sound[:24] + rate.to_bytes(4, "little") + sound[28:]
        elif kind < 0.5:
            sound = sound[:40] + b"\xff\xff\xff\xff" + sound[44:]
        (folder / f"{name}.wav").write_bytes(sound)
    ending = rng.choice(("csv", "tsv", "json", "jsonl"))
    path = folder / f"m.{ending}"
    content = _written(ending, _rows(rng), rng)
    if rng.random() < 0.25:
        content = mutated_bytes(content, rng)
    if rng.random() < 0.05:
        path.symlink_to(rng.choice(("/dev/zero", "pipe", "loop", "folder")))
    else:
        path.write_bytes(content)
    source = path.name if rng.random() < 0.9 else rng.choice((".", "pipe", "a.wav", "loop"))
    recipe = "audio=audio" if rng.random() < 0.7 else rng.choice(RECIPES)
    place.command("data", "extract", source, "--to", "out", "--make", recipe, "--workers", "0")


def _rows(rng: Random) -> list[dict[str, Any]]:
    """Rows of a manifest, some with values that no clip has."""
    rows: list[dict[str, Any]] = []
    for number, name in enumerate("abab"):
        row: dict[str, Any] = {"id": f"clip {number}", "path": f"{name}.wav", "text": "red square"}
        row |= {"start": 0.0, "end": 0.3, "split": "train", "group": name, "label": number}
        rows.append(row)
    for _ in range(rng.choice((0, 1, 1, 2))):
        row = rng.choice(rows)
        column = rng.choice(COLUMNS)
        row[column] = rng.choice((json_value(rng), rng.choice(TEXTS), rng.choice(ODD)))
    return rows


ODD = (
    *("nan", "inf", "1e308", "-1", "9" * 5000, "../a.wav", "/etc/passwd", "a.wav/", "./a.wav"),
    *("folder/../a.wav", "test", "TRAIN", "0.1", "0,1", "\u2028", "=cmd|' /C calc'!A0", "\ufeffa"),
    *(
        ".",
        "",
        " ",
        "a.wav ",
        "A.WAV",
        "http://x/a.wav",
        "file:a.wav",
        "pipe",
        "concat:a.wav|b.wav",
    ),
)


def _written(ending: str, rows: list[dict[str, Any]], rng: Random) -> bytes:
    if ending == "json":
        return json.dumps(rows).encode("utf-8", "surrogatepass")
    if ending == "jsonl":
        return "\n".join(map(json.dumps, rows)).encode("utf-8", "surrogatepass")
    stream = StringIO()
    names = [*COLUMNS, "path"] if rng.random() < 0.05 else [*COLUMNS]
    writer = csv.writer(stream, delimiter="," if ending == "csv" else "\t")
    writer.writerow(names)
    for row in rows:
        writer.writerow([row[name] for name in names])
    return stream.getvalue().encode("utf-8", "surrogatepass")


def _annotations(place: Place) -> None:
    make_pack(place.folder)
    path = place.folder / "steps.csv"
    if place.rng.random() < 0.2:
        path.symlink_to(place.rng.choice(("/dev/zero", "pipe", "loop", "folder")))
    else:
        path.write_bytes(mutated_bytes(ANNOTATIONS.encode(), place.rng))
    scenario = SCENARIO.replace('name = "text_to_video"', 'name = "t"\nkind = "steps"')
    text = f'{scenario}annotations = "steps.csv"\n'
    (place.folder / "mine.toml").write_text(text, encoding="utf-8")
    place.command(place.rng.choice(("validate", "run")), "mine.toml")
