"""Definitions from the contents of TOML files, or every problem found in them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, PlainValidator, create_model

from continual_mm.definitions.rules import Number, PluginRule, Words
from continual_mm.definitions.scenario import (
    PUBLISHED_TRAINING,
    MemorySettings,
    Protocol,
    Scenario,
    ScenarioHead,
    SpaceSettings,
    Stage,
    Strategy,
    TowerSettings,
    Training,
)
from continual_mm.definitions.tables import Reader, Table, refusal, shown
from continual_mm.system.errors import Problem

Document = Mapping[str, Any]  # a TOML file's contents as Python values

BOUNDS = {"joint": "meets everything at once", "cumulative": "meets everything seen so far"}
"""Keys of strategies that exclude all others, and why."""


@dataclass(frozen=True, slots=True)
class ScenarioDraft:
    """A scenario without what ``problems``, on any dataset, are about."""

    scenario: Scenario
    problems: tuple[Problem, ...]


def draft_scenario(document: Document, *, name: str, folder: str, file: str) -> ScenarioDraft:
    """Read a scenario file as far as possible, so that it can be checked on its dataset as well."""
    reader = Reader(file)
    inner = ("space", "training", "tower", "stage", "protocol")
    document = _with_published(document)
    outer = {key: value for key, value in document.items() if key not in inner}
    head = reader.table(ScenarioHead, "", outer, tables=inner)
    if document.get("dataset", "") == "" and not _each_stage_names_one(document.get("stage")):
        remedy = 'add dataset = "narrated_shapes", or the path of a feature pack'
        reader.refuse("dataset", "no dataset is named", remedy)
    parts = {
        **{key: getattr(head, key) for key in ScenarioHead.model_fields},
        "name": name,
        "folder": folder,
        "space": reader.table(SpaceSettings, "[space]", document.get("space", {})),
        "training": reader.table(Training, "[training]", document.get("training", {})),
        "towers": _towers(reader, document.get("tower", {})),
        "stages": _stages(reader, document.get("stage", [])),
        "protocols": _protocols(reader, document.get("protocol", [])),
    }
    if reader.problems:
        return ScenarioDraft(Scenario.model_construct(**parts), tuple(reader.problems))
    return ScenarioDraft(Scenario.model_validate(parts), ())


def _each_stage_names_one(stages: Any) -> bool:
    return (
        isinstance(stages, list)
        and bool(stages)
        and all(isinstance(one, Mapping) and one.get("dataset") for one in stages)
    )


def _towers(reader: Reader, tables: Any) -> dict[str, TowerSettings]:
    if not isinstance(tables, Mapping):
        reader.refuse("[tower]", f"{shown(tables)} is no table", "write [tower.video], or another")
        return {}
    return {
        name: reader.table(TowerSettings, f"[tower.{name}]", table)
        for name, table in tables.items()
    }


def _with_published(document: Document) -> Document:
    """The contents with published values in reference mode; those of ``[space]`` come with it."""
    space, training = document.get("space"), document.get("training", {})
    if not isinstance(space, Mapping) or space.get("mode") != "reference":
        return document
    if isinstance(training, Mapping):
        training = {**PUBLISHED_TRAINING, **training}
    return {"standardise": False, **document, "training": training}


def _tables(reader: Reader, name: str, tables: Any, example: str) -> list[Any]:
    """The tables ``[[name]]``; none, and a problem, if they are no list."""
    if isinstance(tables, list):
        return tables
    remedy = f"write [[{name}]], in double brackets, with {example} below it"
    reader.refuse(f"[[{name}]]", f"{shown(tables)} is no list of tables", remedy)
    return []


def _stages(reader: Reader, tables: Any) -> tuple[Stage, ...]:
    """The stages; of faulty lists in them, the names that can be read."""
    example = 'add = ["video", "audio"]'
    if not tables:
        remedy = f"write [[stage]], in double brackets, with {example} below it"
        reader.refuse("[[stage]]", "no stage is defined", remedy)
    found = []
    for number, table in enumerate(_tables(reader, "stage", tables or [], example), start=1):
        stage = reader.table(Stage, f"[[stage]] {number}", table)
        said = table if isinstance(table, Mapping) else {}
        names = {"add": _texts(said.get("add")) or (), "pairs": _texts(said.get("pairs"))}
        found.append(stage.model_copy(update=names))
    return tuple(found)


def _protocols(reader: Reader, tables: Any) -> tuple[Protocol, ...]:
    """The protocols without problems of their own; each name once."""
    found: list[Protocol] = []
    for number, table in enumerate(_tables(reader, "protocol", tables, "keys"), start=1):
        place, known = f"[[protocol]] {number}", len(reader.problems)
        protocol = reader.table(Protocol, place, table)
        if len(reader.problems) > known:
            continue
        if protocol.name in [each.name for each in found]:
            problem = f"{protocol.name!r} is the name of an earlier one"
            reader.refuse(f"{place}, name", problem, "give each protocol a name of its own")
        found.append(protocol)
    return tuple(found)


def _texts(value: Any) -> tuple[str, ...] | None:
    """The strings of what should be a list of strings; None if it is something else."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        return None
    return tuple(text for text in value if isinstance(text, str))


def read_strategy(
    document: Document, *, name: str, file: str, rules: Mapping[str, PluginRule]
) -> Strategy:
    """Read a strategy file, or raise every problem; ``rules`` say what known plugins accept."""
    reader = Reader(file)
    own = ("description", *BOUNDS, "memory")
    tables = {key: value for key, value in document.items() if key not in own}
    top = {key: document[key] for key in ("description", *BOUNDS) if key in document}
    parts: dict[str, Any] = {"name": name, **top}
    reader.table(Strategy, "", parts)
    if "memory" in document:
        parts["memory"] = reader.table(MemorySettings, "[memory]", document["memory"])
    parts["plugins"] = {
        key: _plugin(reader, key, value, rules, own) for key, value in tables.items()
    }
    needing = [
        f"[{key}]"
        for key, said in parts["plugins"].items()
        if key in rules and rules[key].asks_for_memory(said)
    ]
    if needing and "memory" not in document:
        problem = f"the table is missing, but past items are needed by {', '.join(needing)}"
        reader.refuse("[memory]", problem, "add [memory] with items = 128 below it")
    protecting = [key for key, rule in rules.items() if not rule.for_bounds]
    _check_bounds(reader, document, [key for key in document if key in (*protecting, "memory")])
    reader.problems.check()
    return Strategy.model_validate(parts)


def _check_bounds(reader: Reader, document: Document, tables: Iterable[str]) -> None:
    """Add a problem if plugins or a memory are given beside joint or cumulative training."""
    bounds = [key for key in BOUNDS if document.get(key) is True]
    others = [*(f"{key} = true" for key in bounds[1:]), *(f"[{key}]" for key in tables)]
    if bounds and others:
        bound = bounds[0]
        problem = f"{bound} training {BOUNDS[bound]} and has nothing to protect"
        reader.refuse(bound, problem, f"remove {', '.join(others)}, or {bound} = true")


def _plugin(
    reader: Reader, name: str, values: Any, rules: Mapping[str, PluginRule], own: tuple[str, ...]
) -> Mapping[str, Any]:
    """The parameters that a file gives to one plugin, each within its range."""
    if name not in rules:
        reader.unknown("", name, values, [*rules, *own])
        return {}
    # By alias, for a plugin's parameter may bear a name that pydantic's models use themselves.
    fields: dict[str, Any] = {
        f"parameter_{number}": (_type_of(kind), Field(default=None, alias=key))
        for number, (key, kind) in enumerate(rules[name].parameters.items())
    }
    model = create_model("Parameters", __base__=Table, **fields)
    return reader.table(model, f"[{name}]", values).model_dump(by_alias=True, exclude_unset=True)


def _type_of(kind: Any) -> Any:
    if not isinstance(kind, Number | Words):
        return kind

    def within(value: Any) -> float | str:
        if remedy := kind.remedy(value):
            raise refusal(f"{shown(value)} cannot be used", remedy)
        if isinstance(kind, Words):
            return str(value)
        return int(value) if kind.whole else float(value)

    return Annotated[Any, PlainValidator(within)]
