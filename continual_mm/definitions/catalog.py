"""Find and open definitions: the shipped ones by name, a user's own by path."""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from continual_mm.system.errors import InputError, Problem, suggestion

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


@dataclass(frozen=True, slots=True)
class Entry:
    """A definition file and what it says, not yet checked."""

    kind: DefinitionKind
    name: str
    path: Path
    document: dict[str, Any]

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
    if _is_path(name):
        entry = open_definition(kind, Path(name))
        if (found := kind_of(entry.document) or kind) != kind:
            problem = f"this is a {ONE_OF[found]}, where a {ONE_OF[kind]} is needed"
            raise InputError.at(entry.path, problem, f"see continual-mm list {kind}")
        return entry
    inside = definitions_folder(kind) / f"{name}.toml"
    if inside.is_file():
        return open_definition(kind, inside)
    known = _names(kind)
    remedy = f"{suggestion(name, known)}there are {', '.join(known)}; for a file, give its path"
    raise InputError.at(f"{ONE_OF[kind]} {name!r}", "no such definition", remedy)


def find_any(name: str) -> Entry:
    """The definition of a name whichever its kind; the kind of a file follows from its contents."""
    if _is_path(name):
        entry = open_definition("strategies", Path(name))
        return replace(entry, kind=kind_of(entry.document) or entry.kind)
    for kind in DEFINITION_KINDS:
        if name in _names(kind):
            return find(kind, name)
    hint = suggestion(name, [known for kind in DEFINITION_KINDS for known in _names(kind)])
    remedy = f"{hint}continual-mm list shows what there is; for a file, give its path"
    raise InputError.at(repr(name), "no such definition", remedy)


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


def _is_path(name: str) -> bool:
    return Path(name).suffix == ".toml" or len(Path(name).parts) > 1


def _names(kind: DefinitionKind) -> list[str]:
    return sorted(path.stem for path in definitions_folder(kind).glob("*.toml"))


def open_definition(kind: DefinitionKind, path: Path) -> Entry:
    """Parse one TOML file; an InputError with the parser's line if it is none."""
    try:
        # Windows editors may put a byte order mark in front, which is not TOML.
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        remedy = "continual-mm list shows what there is by name"
        raise InputError.at(path, "no such file", remedy) from error
    except OSError as error:
        raise InputError.at(path, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        problem = f"not valid TOML: byte {error.start} is not UTF-8"
        raise InputError.at(path, problem, "save it as UTF-8") from error
    try:
        return Entry(kind, path.stem, path, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        end = f"at line {len(text.splitlines())}, the end of the file"
        problem = f"not valid TOML: {error}".replace("at end of document", end)
        raise InputError.at(path, problem) from error


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
        table[key] = _value(text)
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


def _value(text: str) -> Any:
    try:
        read = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return read["value"] if len(read) == 1 else text
