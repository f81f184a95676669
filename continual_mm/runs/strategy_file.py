"""A strategy as the text of its file: from scratch, or in the words of the file that it had."""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.definitions import Strategy
from continual_mm.plugins.registry import rules
from continual_mm.reading import BOUNDS, read_strategy

TUNED = "# Tuned on "
"""How the line begins that says where values come from; a newer one replaces it."""

_TABLE = re.compile(r"\s*\[\s*(?P<name>[\w-]+)\s*\]\s*(#.*)?")
_KEY = re.compile(r"\s*(?P<key>[\w-]+)\s*=\s*(?P<number>[-+.\w]+(?=\s*(#|$)))?")

Tables = Mapping[str, Mapping[str, Any]]


def check_target(path: Path, *, force: bool) -> None:
    """See whether a strategy may be written there.

    Raises:
        RefusedError: If it is no TOML file, or is there already and ``force`` is not given.
    """
    if path.suffix != ".toml":
        raise RefusedError(Complaint(str(path), "is no name of a strategy file", "end it in .toml"))
    if path.exists() and not force:
        remedy = "name another file, or add --force"
        raise RefusedError(Complaint(str(path), "is there already", remedy))


def rewritten(text: str, strategy: Strategy) -> str:
    r"""A strategy in the words of the file that it had: its numbers change, all else is kept.

    The line on an earlier tuning is left out. Where numbers alone do not make the file that
    strategy, or a number is not on a line of its own, it is written from scratch.

    >>> ewc = Strategy(name="ewc", plugins={"ewc": {"weight": 2.5}})
    >>> print(rewritten("[ewc]  # By hand.\nweight = 1.0  # Held.\n", ewc), end="")
    [ewc]  # By hand.
    weight = 2.5  # Held.
    """
    lines = [line for line in text.splitlines() if not line.startswith(TUNED)]
    kept = "\n".join(_renumbered(lines, _tables(strategy))) + "\n"
    return kept if _says(kept, strategy) else as_toml(strategy)


def _renumbered(lines: Sequence[str], tables: Tables) -> list[str]:
    """Lines with the numbers of their tables; what a table lacks follows its last line."""
    found: list[str] = []
    last = 0
    left: dict[str, Any] = {}
    for line in lines:
        if head := _TABLE.fullmatch(line):
            found[last:last] = _assignments(left)
            left = dict(tables.get(head["name"], {}))
        said = _KEY.match(line)
        value = left.pop(said["key"], None) if said else None
        if said and said["number"] and value is not None:
            begin, end = said.span("number")
            found.append(f"{line[:begin]}{_toml(value)}{line[end:]}")
        else:
            found.append(line)
        if line.strip() and not line.startswith("#"):
            last = len(found)
    found[last:last] = _assignments(left)
    return found


def _says(text: str, strategy: Strategy) -> bool:
    """Whether a file with this text is that strategy."""
    try:
        document = tomllib.loads(text)
        read = read_strategy(document, name=strategy.name, file="", rules=rules(document))
    except (tomllib.TOMLDecodeError, RefusedError):
        return False
    return read == strategy


def as_toml(strategy: Strategy) -> str:
    """A strategy as the text of its file.

    >>> print(as_toml(Strategy(name="x", description="Two.", plugins={"ewc": {"weight": 1e-05}})))
    description = "Two."
    <BLANKLINE>
    [ewc]
    weight = 1e-05
    <BLANKLINE>
    """
    bounds = "".join(f"{key} = true\n" for key in BOUNDS if getattr(strategy, key))
    parts = [f"description = {_toml(strategy.description)}\n{bounds}"]
    for name, said in _tables(strategy).items():
        parts.append("\n".join([f"[{_key(name)}]", *_assignments(said)]) + "\n")
    return "\n".join(parts)


def _tables(strategy: Strategy) -> Tables:
    memory = {} if strategy.memory is None else {"memory": strategy.memory.model_dump()}
    return {**memory, **strategy.plugins}


def _assignments(said: Mapping[str, Any]) -> list[str]:
    return [f"{_key(key)} = {_toml(value)}" for key, value in said.items()]


def _key(name: str) -> str:
    bare = name.replace("_", "").replace("-", "")
    return name if bare.isascii() and bare.isalnum() else _toml(name)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(key)} = {_toml(v)}' for key, v in value.items())} }}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else repr(value)
