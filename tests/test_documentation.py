import re
import shlex
import tomllib
from inspect import Parameter, signature
from itertools import zip_longest
from pathlib import Path
from pkgutil import resolve_name
from typing import get_args

import pytest

from continual_mm.data.schema import ITEM_COLUMNS, KIND, LENGTH, PRESENT
from continual_mm.definitions import catalog
from continual_mm.definitions.modality import Kind
from continual_mm.definitions.rules import Words, amount
from continual_mm.definitions.scenario import (
    PUBLISHED_SPACE,
    PUBLISHED_TRAINING,
    Bug,
    MemorySettings,
    Protocol,
    Scenario,
    SpaceSettings,
    Stage,
    Strategy,
    TowerSettings,
    Training,
)
from continual_mm.plugins.registry import BUILT_IN
from continual_mm.runs.opening import open_scenario, open_strategy
from continual_mm.system.errors import InputError

ROOT = Path(__file__).parents[1]
SCENARIOS = ROOT / "scenarios" / "README.md"
STRATEGIES = ROOT / "strategies" / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DEMANDED, WORKED_OUT = "required", ("all completed", "chosen")

OWN_TABLES = {"space", "training", "towers", "stages", "protocols"}
TABLES = [
    (SCENARIOS, "Top of the file", Scenario, {*OWN_TABLES, "name", "folder"}),
    (SCENARIOS, "`[space]`", SpaceSettings, set()),
    (SCENARIOS, "`[training]`", Training, set()),
    (SCENARIOS, "`[tower.<modality>]`", TowerSettings, set()),
    (SCENARIOS, "`[[stage]]`", Stage, set(Training.model_fields)),
    (SCENARIOS, "`[[protocol]]`", Protocol, set()),
    (STRATEGIES, "Top of the file", Strategy, {"name", "memory", "plugins"}),
    (STRATEGIES, "`[memory]`", MemorySettings, set()),
]
"""Page, section, the table that it tells and the keys that it leaves to others."""


def section(page, heading):
    _, _, rest = page.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    assert rest, f"{page} has no section {heading}"
    return rest.split("\n## ")[0]


def rows(text):
    """The cells of every table row, headings and rules left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    below = zip_longest(cells, cells[1:], fillvalue=[""])
    return [row for row, next_row in below if "---" not in (row[0], next_row[0])]


def told(page, heading):
    """Key -> (default, values) as a page tells them."""
    return {row[0].strip("`"): (row[1].strip("`"), row[2]) for row in rows(section(page, heading))}


def allowed(schema):
    """The words for the values that a JSON schema lets pass."""
    if "enum" in schema:
        return " or ".join(f'`"{value}"`' for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(allowed(each) for each in schema["anyOf"] if each["type"] != "null")
    kinds = {"string": "text", "boolean": "true or false", "array": "list of names"}
    kinds["object"] = "table of numbers"
    if schema["type"] in kinds:
        return kinds[schema["type"]]
    noun = {"integer": "whole number", "number": "number"}[schema["type"]]
    high = amount(schema["maximum"])
    if "exclusiveMinimum" in schema:
        return f"{noun}, above {amount(schema['exclusiveMinimum'])}, at most {high}"
    return f"{noun}, {amount(schema['minimum'])} to {high}"


def allowed_number(number):
    if isinstance(number, Words):
        return " or ".join(f'`"{word}"`' for word in number.known)
    noun = "whole number" if number.whole else "number"
    low, high = amount(number.least), amount(number.most)
    return f"{noun}, above {low}, at most {high}" if number.above else f"{noun}, {low} to {high}"


@pytest.mark.parametrize(("page", "heading", "model", "others"), TABLES)
def test_every_key_of_a_definition_is_told_with_its_default_and_range(page, heading, model, others):
    schemas = model.model_json_schema()["properties"]
    fields = {key: field for key, field in model.model_fields.items() if key not in others}
    page_says = told(page, heading)
    assert set(page_says) == set(fields)
    for key, (default, values) in page_says.items():
        assert values == allowed(schemas[key]), key
        if default not in (DEMANDED, *WORKED_OUT):
            usual = fields[key].default
            usual = list(usual) if isinstance(usual, tuple) else usual
            assert tomllib.loads(f"value = {default}")["value"] == usual, key


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_plugin_parameter_is_told_with_its_default_and_range(name):
    accepted = signature(resolve_name(BUILT_IN[name].path)).parameters
    constructor = {key: p for key, p in accepted.items() if p.kind is Parameter.KEYWORD_ONLY}
    rule = BUILT_IN[name].rule
    page_says = told(STRATEGIES, f"`[{name}]`")
    assert set(page_says) == set(rule.parameters) == set(constructor)
    for key, (default, values) in page_says.items():
        assert values == allowed_number(rule.parameters[key]), key
        assert tomllib.loads(f"value = {default}")["value"] == constructor[key].default, key
    assert rule.needs_memory == ("Needs `[memory]`." in section(STRATEGIES, f"`[{name}]`"))


def test_every_range_of_tuning_is_told():
    told_ranges = {
        row[0].strip("`"): (float(row[1]), float(row[2]), row[3])
        for row in rows(section(STRATEGIES, "Tuning"))
    }
    assert told_ranges == {
        f"{name}.{key}": (where.low, where.high, "log" if where.log else "linear")
        for name, known in BUILT_IN.items()
        for key, where in known.search.items()
    }


def test_every_published_value_and_every_mistake_to_repeat_is_told():
    told_values = rows(section(SCENARIOS, "Reference mode"))
    for table, published in {"[space]": PUBLISHED_SPACE, "[training]": PUBLISHED_TRAINING}.items():
        cells = [row[1:] for row in told_values if row[0] == f"`{table}`"]
        values = {key.strip("`"): tomllib.loads(f"v = {v.strip('`')}")["v"] for key, v in cells}
        assert values == dict(published)
    mistakes = {row[1].strip('`"') for row in told_values if len(row) == 3 and row[1][1:2] == '"'}
    assert mistakes == set(get_args(Bug))


def test_every_column_of_a_feature_pack_is_told():
    columns = section(SCENARIOS, "Feature packs")
    own = {f"<modality>{ending}" for ending in (KIND, LENGTH, PRESENT)}
    for name in {*ITEM_COLUMNS, *own, *Kind}:
        assert f"`{name}`" in columns


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def accept(text, kind, folder):
    file = folder / "told.toml"
    file.write_text(text, encoding="utf-8")
    entry = catalog.find(kind, str(file))
    if kind == "scenarios":
        open_scenario(entry)
    else:
        open_strategy(entry)


@pytest.mark.parametrize("kind", catalog.DEFINITION_KINDS)
def test_every_definition_on_a_page_is_accepted(kind, tmp_path):
    documents = blocks(ROOT / kind / "README.md", "toml")
    definitions = [text for text in documents if text.startswith("description")]
    assert definitions
    for text in definitions:
        accept(text, kind, tmp_path)


@pytest.mark.parametrize(
    ("kind", "key"), [("scenarios", "dataset"), ("scenarios", "add"), ("strategies", "items")]
)
def test_a_key_told_to_be_required_is_refused_if_missing(kind, key, tmp_path):
    page = ROOT / kind / "README.md"
    assert re.search(rf"^\| `{key}` \| {DEMANDED} ", page.read_text(encoding="utf-8"), re.MULTILINE)
    whole = blocks(page, "toml")[0]
    accept(whole, kind, tmp_path)
    without = "\n".join(line for line in whole.splitlines() if not line.startswith(f"{key} ="))
    with pytest.raises(InputError, match=key):
        accept(without, kind, tmp_path)


@pytest.mark.parametrize("page", [SCENARIOS, STRATEGIES], ids=["scenarios", "strategies"])
def test_the_commands_of_a_page_run_one_after_another(page, tmp_path, monkeypatch, typed):
    monkeypatch.chdir(tmp_path)
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    assert lines
    for line in lines:
        program, *arguments = shlex.split(line, comments=True)
        assert program == "continual-mm"
        # A page may train for minutes, a test may not; the last setting counts.
        hurry = ["--set", "training.steps=1"] if arguments[0] == "run" else []
        assert not typed(*arguments, *hurry).code, line


def test_the_commands_on_merging_run_one_after_another(tmp_path, monkeypatch, typed):
    page = ROOT / "docs" / "merging.md"
    monkeypatch.chdir(tmp_path)
    (scenario,) = blocks(page, "toml")
    Path("vt.toml").write_text(scenario)
    Path("at.toml").write_text(scenario.replace('"video"', '"audio"'))
    for line in (line for block in blocks(page, "sh") for line in block.splitlines()):
        _, *arguments = shlex.split(line, comments=True)
        hurry = ["--set", "training.steps=1", "--no-board"] if arguments[0] == "run" else []
        if "vt_at_merge" in arguments:
            hurry += ["--set", "stage.3.steps=1"]
        assert not typed(*arguments, *hurry).code, line
    assert Path("runs/merged/scores.json").is_file()


def test_the_commands_on_fusing_run_one_after_another(tmp_path, monkeypatch, typed):
    page = ROOT / "docs" / "fusion.md"
    monkeypatch.chdir(tmp_path)
    for line in (line for block in blocks(page, "sh") for line in block.splitlines()):
        _, *arguments = shlex.split(line, comments=True)
        hurry = ["--set", "training.steps=1", "--no-board"] if arguments[0] == "run" else []
        assert not typed(*arguments, *hurry).code, line


def test_every_dependency_has_its_reason():
    project = PROJECT["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    reasons = rows(section(CONTRIBUTING, "Dependencies"))
    names = [re.split(r"[^\w-]", requirement)[0] for requirement in needed]
    assert [package.strip("`") for package, _ in reasons] == names
    assert all(reason for _, reason in reasons)


def test_every_module_has_a_room_and_every_room_is_there():
    package = ROOT / "continual_mm"
    tree = section(CONTRIBUTING, "The house").split("```text\n")[1].split("```")[0]
    drawn, folders = set(), []
    for line in tree.splitlines():
        if match := re.match(r"( *)([a-z_]+)/", line):
            folders[len(match[1]) // 2 :] = [match[2]]
        else:
            drawn |= {"/".join([*folders[1:], name]) for name in line.split()}
    modules = {path.relative_to(package).with_suffix("") for path in package.rglob("*.py")}
    assert drawn == {each.as_posix() for each in modules if each.name != "__init__"}


def test_the_three_walks_name_what_there_is():
    walks = section(CONTRIBUTING, "The house").split("### Three walks")[1].split("### ")[0]
    names = [name for name in re.findall(r"`([a-z_.]+\.\w+)`", walks) if "/" not in name]
    assert len(names) > 30
    for name in names:
        if name != "scores.json":
            assert resolve_name(f"continual_mm.{name}"), name


def test_pins_are_names_and_versions_and_cover_every_direct_dependency():
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    matches = [re.fullmatch(r"([a-z0-9-]+)==([\w.]+)( ; .+)?", pin) for pin in pins]
    assert all(matches), "a line is no pin"
    pinned = {match[1] for match in matches if match}
    project = PROJECT["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert {re.split(r"[^\w-]", requirement)[0].lower() for requirement in needed} <= pinned
    assert not any(name.startswith(("nvidia", "cuda", "triton")) for name in pinned)
