"""Mutations of texts, bytes and values; each is drawn from a seeded generator."""

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

NUMBERS = (
    *("0", "-1", "1", "2", "3", "0.5", "1e-320", "1e308", "-1e308", "nan", "inf", "-inf"),
    *("9223372036854775807", "9223372036854775808", "1" + "0" * 30, "9" * 5000, "0x" + "f" * 9000),
    *("1_000_000_000", "65536", "2147483648", "0b1", "-0.0", "1979-05-27T07:32:00Z"),
)
"""As TOML spells them."""

TEXTS = (
    *("", ".", "..", "/", "~", "~nosuchuser/x.npz", "/dev/zero", "/dev/null", "/dev/full", "a\0b"),
    *("\x1b[31mred", "\u202egnp", "\U0001f600", "x" * 100_000, "a/" * 3000 + "b", "video-text"),
    *(
        "hf:",
        "hf:a/b",
        "hf:../../x",
        "con:",
        "*",
        "%s%n",
        "{0}",
        "[bold]",
        "$HOME",
        "\r\n",
        "-",
        "a",
    ),
    *("folder", "link", "loop", "pipe", "p.npz", "stage.toml"),
)
"""What a user's text may be."""


def toml_value(rng: Random, depth: int = 0) -> str:
    """A value, as TOML spells it."""
    choice = rng.randrange(9 if depth < 3 else 4)
    if choice <= 1:
        return rng.choice(NUMBERS)
    if choice <= 3:
        return json.dumps(rng.choice(TEXTS))
    if choice == 4:
        return rng.choice(("true", "false"))
    if choice == 5:
        count = rng.choice((0, 1, 2, 5, 300))
        return f"[{', '.join(toml_value(rng, depth + 1) for _ in range(count))}]"
    if choice == 6:
        return "{" + f"{rng.choice('abc')} = {toml_value(rng, depth + 1)}" + "}"
    if choice == 7:
        levels = rng.choice((10, 90, 400, 900, 10_000))
        return "[" * levels + "]" * levels
    levels = rng.choice((10, 90, 400, 900))
    return "{a = " * levels + "1" + "}" * levels


def like(value: str, rng: Random) -> str:
    """Another value of the same type, as TOML spells them, which may well be sound."""
    if value.startswith('"'):
        return json.dumps(rng.choice((*TEXTS, "video", "shared", "paired", "label", "reference")))
    if value.startswith("["):
        names = ("video", "audio", "text", "smell", "video-text", "audio-text", "text-text", "")
        return json.dumps(rng.sample(names, rng.randrange(4)))
    if value in ("true", "false"):
        return rng.choice(("true", "false", "0", '"true"'))
    small = ("0", "1", "2", "3", "4", "7", "16", "64", "0.0", "0.1", "0.5", "1.0", "-1", "1e-9")
    return rng.choice((*small, "100000", "1e6", "1e300", "4294967296"))


def _swapped(text: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(text) or 1)
    return text[:at] + bytes([rng.randrange(256)]) + text[at + 1 :]


def _cut(text: bytes, rng: Random) -> bytes:
    return text[: rng.randrange(len(text) + 1)]


def _inserted(text: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(text) + 1)
    what = rng.choice(
        (b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\x1b[2J", b"\r", b'"', b"[", b"=", b"\xef\xbb\xbf")
    )
    return text[:at] + what * rng.choice((1, 1, 50)) + text[at:]


def _doubled(text: bytes, rng: Random) -> bytes:
    first, last = sorted(rng.randrange(len(text) + 1) for _ in range(2))
    return text[:last] + text[first:]


def _removed(text: bytes, rng: Random) -> bytes:
    first, last = sorted(rng.randrange(len(text) + 1) for _ in range(2))
    return text[:first] + text[last:]


BYTES: Sequence[Callable[[bytes, Random], bytes]] = (_swapped, _cut, _inserted, _doubled, _removed)


def mutated_bytes(text: bytes, rng: Random) -> bytes:
    """Bytes with one to three changes."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        text = rng.choice(BYTES)(text, rng)
    return text


def json_value(rng: Random, depth: int = 0) -> Any:
    """A value that JSON can spell."""
    choice = rng.randrange(8 if depth < 3 else 5)
    if choice <= 1:
        numbers = (0, -1, 1, 2, 0.5, 1e308, float("nan"), float("inf"), 2**63, 10**30)
        return rng.choice((*numbers, int("9" * 4000)))
    if choice <= 3:
        return rng.choice((*TEXTS, "\ud800"))
    if choice == 4:
        return rng.choice((True, False, None))
    if choice == 5:
        return [json_value(rng, depth + 1) for _ in range(rng.choice((0, 1, 3)))]
    if choice == 6:
        return {rng.choice(("a", "path", "", "\0")): json_value(rng, depth + 1)}
    deep: Any = 1
    for _ in range(rng.choice((10, 90, 400))):
        deep = [deep]
    return deep
