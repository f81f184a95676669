"""Mutated scenario and strategy files, on which definitions are shown, validated and trained."""

from functools import cache
from random import Random

from inputs import SCENARIO, make_odd_files, make_pack
from mutate import like, mutated_bytes, toml_value
from trial import Place

from continual_mm.definitions.catalog import DEFINITION_KINDS, shipped


def trial(place: Place) -> None:
    """A definition with a change or several, shown, validated or trained."""
    rng = place.rng
    make_pack(place.folder)
    make_odd_files(place.folder)
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
    for _ in range(rng.choice((1, 1, 1, 2))):
        at = rng.randrange(len(lines) + 1)
        if at == len(lines) or "=" not in lines[at] or rng.random() < 0.2:
            lines.insert(at, _new_line(rng))
        else:
            key, _, value = lines[at].partition("=")
            lines[at] = (
                f"{key}= {like(value.strip(), rng) if rng.random() < 0.6 else toml_value(rng)}"
            )
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _new_line(rng: Random) -> str:
    key = rng.choice(
        ("dim", "dataset", "start", "rank", "a.b.c", '"\\u0000"', "x" * 500, "tower.video.weights")
    )
    table = rng.choice(("[space]", "[[stage]]", "[memory]", "[tower.video]", "[x.y]", "[[space]]"))
    many = "\n".join(f"key_{number} = 1" for number in range(3000))
    return rng.choice((f"{key} = {toml_value(rng)}", table, f"{table}\n{many}", "}", '"""'))
