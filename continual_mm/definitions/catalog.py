"""Find and open definitions: the shipped ones by name, a user's own by path."""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from continual_mm.system.errors import SHOWN, InputError, Problem, printable, suggestion
from continual_mm.system.reading import read_text, user_path

DefinitionKind = Literal["scenarios", "strategies"]
DEFINITION_KINDS: tuple[DefinitionKind, ...] = ("scenarios", "strategies")
ONE_OF: Mapping[DefinitionKind, str] = MappingProxyType(
    {"scenarios": "scenario", "strategies": "strategy"}
)

SCENARIO_KEYS = frozenset(
    {
        *("description", "dataset", "items", "positives", "standardise", "start"),
        *("space", "training", "tower", "stage", "protocol"),
    }
)
"""What may stand at the top of a scenario file; all else is a strategy's."""

LARGEST = 1 << 20
"""Bytes of a definition file; those that ship have a thousandth of it."""

DEEPEST = 16
"""Tables and lists that may lie in one another; definitions need three."""

_LISTED = "continual-mm list shows what there is by name"
_TOO_DEEP = f"not valid: tables and lists lie in one another more than {DEEPEST} deep"
_TOO_LARGE = "not valid TOML: a whole number is beyond 64 bits"


@dataclass(frozen=True, slots=True)
class Entry:
    """A definition file and what it says, not yet checked."""

    kind: DefinitionKind
    name: str
    path: Path
    document: dict[str, Any]

    def __str__(self) -> str:
        return str(self.path)

    @property
    def description(self) -> str:
        """The sentence that lists show."""
        return str(self.document.get("description", ""))


def definitions_folder(kind: DefinitionKind) -> Path:
    """The folder of shipped definitions: inside a wheel, beside the package in a checkout."""
    package = Path(str(files("continual_mm")))
    inside = package / kind
    return inside if inside.is_dir() else package.parent / kind


def shipped(kind: DefinitionKind) -> Iterator[Entry]:
    """Every shipped definition, by name."""
    for path in sorted(definitions_folder(kind).glob("*.toml")):
        yield open_definition(kind, path)


def find(kind: DefinitionKind, name: str) -> Entry:
    """A definition by the name it is shipped under or by the path of a file, or an InputError."""
    if path := _path_of(name, _names(kind)):
        entry = open_definition(kind, path)
        if (found := kind_of(entry.document) or kind) != kind:
            problem = f"this is a {ONE_OF[found]}, where a {ONE_OF[kind]} is needed"
            raise InputError.at(entry.path, problem, f"see continual-mm list {kind}")
        return entry
    inside = definitions_folder(kind) / f"{name}.toml"
    if name in _names(kind):
        return open_definition(kind, inside)
    known = _names(kind)
    remedy = f"{suggestion(name, known)}there are {', '.join(known)}; for a file, give its path"
    raise InputError.at(f"{ONE_OF[kind]} {printable(name)!r}", "no such definition", remedy)


def find_any(name: str) -> Entry:
    """The definition of a name whichever its kind; the kind of a file follows from its contents."""
    if path := _path_of(name, [known for kind in DEFINITION_KINDS for known in _names(kind)]):
        entry = open_definition("strategies", path)
        return replace(entry, kind=kind_of(entry.document) or entry.kind)
    for kind in DEFINITION_KINDS:
        if name in _names(kind):
            return find(kind, name)
    hint = suggestion(name, [known for kind in DEFINITION_KINDS for known in _names(kind)])
    remedy = f"{hint}continual-mm list shows what there is; for a file, give its path"
    raise InputError.at(f"{printable(name)!r}", "no such definition", remedy)


def kind_of(document: Mapping[str, Any]) -> DefinitionKind | None:
    """The kind of a document, judged by its keys, of which some may be misspelt; None if unsure."""
    if document.keys() & {"dataset", "stage"}:
        return "scenarios"
    if document.keys() & {"joint", "cumulative", "memory"}:
        return "strategies"
    if any(isinstance(value, list) for value in document.values()):
        return "scenarios"
    if document.keys() - SCENARIO_KEYS:
        return "strategies"
    return "scenarios" if document.keys() - {"description"} else None


def _path_of(name: str, shipped: Iterable[str]) -> Path | None:
    """The file that a name means, with or without its ending; None if it is that of a shipped one.

    What is no definition by its ending is refused.
    """
    path = user_path(name)
    if path.suffix == ".toml":
        return path
    if name in shipped:
        return None
    beside = path.with_name(f"{path.name}.toml") if path.name else path
    if beside.is_file():
        return beside
    if path.exists() or len(path.parts) > 1:
        problem = "is no definition, which is a file that ends in .toml"
        raise InputError.at(path, problem if path.exists() else "no such file", _LISTED)
    return None


def _names(kind: DefinitionKind) -> list[str]:
    return sorted(path.stem for path in definitions_folder(kind).glob("*.toml"))


def open_definition(kind: DefinitionKind, path: Path) -> Entry:
    """Parse one TOML file; an InputError with the parser's line if it is none."""
    # Windows editors may put a byte order mark in front, which is not TOML.
    text = read_text(path, _LISTED, most=LARGEST)
    try:
        document = _parsed(text, str(path))
    except tomllib.TOMLDecodeError as error:
        end = f"at line {len(text.splitlines())}, the end of the file"
        problem = f"not valid TOML: {error}".replace("at end of document", end)
        raise InputError.at(path, problem) from error
    return Entry(kind, path.stem, path, document)


def _parsed(text: str, place: str) -> dict[str, Any]:
    """A TOML text's values, all of which can be used; a TOMLDecodeError if it is no TOML."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError as error:
        raise InputError.at(place, _TOO_DEEP) from error
    except ValueError as error:  # of int(), which reads no more than thousands of digits
        raise InputError.at(place, _TOO_LARGE) from error
    if problems := [*islice(_useless(found, place), SHOWN)]:
        raise InputError(problems)
    return found


def _useless(value: Any, place: str, depth: int = 0) -> Iterator[Problem]:
    """A problem for each value that TOML does not have, or no definition."""
    if isinstance(value, Mapping | list):
        if depth == DEEPEST:
            yield Problem(place, _TOO_DEEP)
            return
        items = value.items() if isinstance(value, Mapping) else enumerate(value, start=1)
        for key, inner in items:
            if "\0" in str(key):
                yield Problem(place, "a key contains a NUL character", "remove it")
            yield from _useless(inner, f"{place}, {printable(str(key))}", depth + 1)
    elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        yield Problem(place, _TOO_LARGE)
    elif isinstance(value, str) and "\0" in value:
        yield Problem(place, "the text contains a NUL character", "remove it")


def overridden(document: dict[str, Any], settings: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """A copy of a document with ``table.key`` settings applied, such as ``stage.2.steps``.

    A value is read as TOML (``0.5``, ``true``, ``["audio"]``); what is not TOML is text.
    """
    changed = deepcopy(document)
    for path, text in settings:
        *outer, key = path.split(".")
        table: Any = changed
        for step in outer:
            table = _entered(table, step, path)
        if not isinstance(table, dict):
            raise InputError(_no_table(table, key, path))
        table[key] = _value(text, f"--set {path}")
    return changed


def _entered(table: Any, step: str, path: str) -> Any:
    if isinstance(table, list) and step in map(str, range(1, len(table) + 1)):
        return table[int(step) - 1]
    if not isinstance(table, dict):
        raise InputError(_no_table(table, step, path))
    return table.setdefault(step, {})


def _no_table(found: Any, step: str, path: str) -> Problem:
    """Why a setting cannot take a step from what was found on its way."""
    place = f"--set {path}"
    if not isinstance(found, list):
        return Problem(place, f"{step!r} would be a key of {found!r}, which is not a table")
    numbers = f"a number from 1 to {len(found)} and a key, such as stage.1.steps"
    return Problem(place, f"there is no number {step!r} in the list", f"write {numbers}")


def _value(text: str, place: str) -> Any:
    try:
        read = _parsed(f"value = {text}", place)
    except tomllib.TOMLDecodeError:
        if "\0" in text:
            raise InputError.at(place, "the text contains a NUL character", "remove it") from None
        return text
    return read["value"] if len(read) == 1 else text
