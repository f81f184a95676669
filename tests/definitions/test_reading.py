"""From a file's contents to a definition."""

import re
import tomllib
from typing import Any

import pytest

from continual_mm.definitions.catalog import SCENARIO_KEYS
from continual_mm.definitions.reading import draft_scenario, read_strategy
from continual_mm.definitions.rules import Number, PluginRule
from continual_mm.definitions.scenario import (
    MemorySettings,
    Protocol,
    Scenario,
    ScenarioHead,
    Stage,
    Strategy,
    Training,
)
from continual_mm.system.errors import InputError

RULES = {
    "keep": PluginRule({"weight": Number(), "rows": Number(least=2, whole=True)}, True),
    "hold": PluginRule({"grip": Number(above=True)}),
    "aim": PluginRule({"weight": Number()}, for_bounds=True),
    "lean": PluginRule({"own": Number(most=1)}, True, unless="own"),
    "odd": PluginRule({"copy": Any, "model_config": Any, "schema": Any}),
}


def draft(text):
    return draft_scenario(tomllib.loads(text), name="mine", folder="here", file="mine.toml")


def told(text):
    return [str(problem) for problem in draft(text).problems]


def strategy(text):
    return read_strategy(tomllib.loads(text), name="mine", file="mine.toml", rules=RULES)


def refusals(text):
    with pytest.raises(InputError) as caught:
        strategy(text)
    return [str(problem) for problem in caught.value.problems]


SOUND = """
description = "Two senses, then a third."
dataset = "senses.npz"
items = "shared"
positives = "duplicates"
standardise = false
[space]
dim = 8
[training]
steps = 5
[[stage]]
add = ["touch", "smell"]
[[stage]]
add = ["taste"]
pairs = ["taste-touch"]
steps = 2
"""


def test_a_sound_scenario_means_what_its_file_says():
    found = draft(SOUND)
    assert found.problems == ()
    read = found.scenario
    assert (read.name, read.folder, read.dataset) == ("mine", "here", "senses.npz")
    assert read.description == "Two senses, then a third."
    assert (read.items, read.positives, read.standardise) == ("shared", "duplicates", False)
    assert read.space.dim == 8
    assert read.stages == (
        Stage(add=("touch", "smell")),
        Stage(add=("taste",), pairs=("taste-touch",), steps=2),
    )
    assert [read.training_of(stage) for stage in (0, 1)] == [Training(steps=5), Training(steps=2)]


REFERENCE = """
dataset = "senses.npz"
[space]
mode = "reference"
dim = 8
[training]
steps = 5
learning_rate = 0.01
[[stage]]
add = ["touch", "smell"]
[[stage]]
add = ["taste"]
clip_norm = 1.0
"""


def test_reference_mode_brings_the_published_training_along():
    found = draft(REFERENCE)
    assert found.problems == ()
    read = found.scenario
    assert read.training == Training.published(steps=5, learning_rate=0.01)
    assert read.training_of(1) == Training.published(steps=5, learning_rate=0.01, clip_norm=1.0)
    assert not read.standardise
    assert (read.space.dim, read.space.clusters) == (8, 256)
    assert draft("standardise = true\n" + REFERENCE).scenario.standardise


HEAD = 'dataset = "senses.npz"\n'
TOUCH = '[[stage]]\nadd = ["touch"]'
NO_STAGES = r"\[\[stage\]\]: .*write \[\[stage\]\], in double brackets"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (REFERENCE.replace("dim = 8", "scale = 8.0"), "scale: 8.0 has no meaning in reference"),
        (REFERENCE.replace('mode = "reference"', "cluster_mean = true"), "in reference mode only"),
        (
            REFERENCE.replace("dim = 8", 'bugs = ["two_over_two"]'),
            r"bugs: 'two_over_two' cannot be",
        ),
        ('standardise = "touch"\n' + REFERENCE, "'touch' is neither true or false nor"),
        *((HEAD + text, NO_STAGES) for text in ("", "stage = []", "stage = 3", "[stage]")),
        (TOUCH, "dataset: no dataset is named; add dataset = "),
        ('dataset = ""\n' + TOUCH, "dataset: no dataset is named; add dataset = "),
        ("dataset = 3\n" + TOUCH, "dataset: 3 cannot be used; give a text in quotes"),
    ],
)
def test_a_mistake_in_a_scenario_is_told_once_with_its_remedy(text, problem):
    (line,) = told(text)
    assert re.match(f"mine.toml, .*{problem}", line)


def test_everything_wrong_with_a_scenario_is_told_at_once():
    text = """
        colour = "red"
        items = "half"
        [spcae]
        [space]
        dim = 1
        hue = 3
        [training]
        steps = "many"
        [[stage]]
        add = []
        [[stage]]
        stpes = 3
        [[stage]]
        add = ["touch"]
        pairs = 3
    """
    expected = ["colour", "items", "[spcae]", "dataset", "[space], dim", "[space], hue"]
    expected += ["[training], steps", "[[stage]] 1, add", "[[stage]] 2, add"]
    expected += ["[[stage]] 2, stpes", "[[stage]] 3, pairs"]
    found = [line.split(":")[0].removeprefix("mine.toml, ") for line in told(text)]
    assert sorted(found) == sorted(expected)


def test_what_stands_at_the_top_of_a_scenario_is_known_in_one_place():
    tables = {"space", "training", "tower", "stage", "protocol"}
    assert ScenarioHead.model_fields.keys() | tables == SCENARIO_KEYS


def test_a_sound_strategy_means_what_its_file_says():
    text = 'description = "Both."\n[hold]\ngrip = 3\n[memory]\nitems = 7\n[keep]\nrows = 4'
    read = strategy(text)
    assert read.description == "Both."
    assert read.memory == MemorySettings(items=7)
    assert read.plugins == {"hold": {"grip": 3.0}, "keep": {"rows": 4}}
    assert list(read.plugins) == ["hold", "keep"]
    assert not read.joint


def test_everything_wrong_with_a_strategy_is_told_at_once():
    text = """
        joint = "yes"
        jiont = true
        [memory]
        itmes = 3
        [keep]
        weight = true
        rows = 1
        wieght = 2
        [hold]
        grip = 0
        [hodl]
        grip = 1
    """
    assert [line.split(";")[0] for line in refusals(text)] == [
        "mine.toml, joint: 'yes' cannot be used",
        "mine.toml, [memory], items: the key is missing",
        "mine.toml, [memory], itmes: unknown key with value 3",
        "mine.toml, jiont: unknown key with value true",
        "mine.toml, [keep], weight: true cannot be used",
        "mine.toml, [keep], rows: 1 cannot be used",
        "mine.toml, [keep], wieght: unknown key with value 2",
        "mine.toml, [hold], grip: 0 cannot be used",
        "mine.toml, [hodl]: unknown table",
    ]


ITEMS = "[memory]\nitems = 1\n"
NEEDED = r"\[memory\]: the table is missing.*\[{}\]; .*items = 128"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        *(
            (f"{ITEMS}[keep]\nweight = {value}", r"\[keep\], weight: ")
            for value in ("'1'", "true", "nan", "inf", "-inf", "-0.1", "[1]")
        ),
        (ITEMS + "[lean]\nown = 1.01", r"\[lean\], own: 1.01 cannot be used; give at most 1"),
        ("[keep]", NEEDED.format("keep")),
        ("[lean]", NEEDED.format("lean")),
        ("[lean]\nown = 0", NEEDED.format("lean")),
        ("joint = true\n[hold]\n" + ITEMS, r"joint: .*; remove \[hold\], \[memory\], or joint = t"),
        ("cumulative = true\n" + ITEMS, r"cumulative: .*; remove \[memory\], or cumulative = true"),
        ("cumulative = true\njoint = true", "joint: .*; remove cumulative = true, or joint = true"),
        ("[[hold]]\ngrip = 1", r"\[hold\]: .* is not a table"),
        ("hold = 1", r"\[hold\]: .* is not a table"),
    ],
)
def test_a_mistake_in_a_strategy_is_told_once_with_its_remedy(text, problem):
    (line,) = refusals(text)
    assert re.match(f"mine.toml, {problem}", line)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("", {}),
        ("joint = true", {"joint": True}),
        ("cumulative = true", {"cumulative": True}),
        ("[lean]\nown = 1", {"plugins": {"lean": {"own": 1.0}}}),
        # What says how pairs are trained protects nothing, and goes with everything.
        ("joint = true\n[aim]\nweight = 2", {"joint": True, "plugins": {"aim": {"weight": 2.0}}}),
        ('[odd]\ncopy = 1\nschema = "x"', {"plugins": {"odd": {"copy": 1, "schema": "x"}}}),
    ],
)
def test_a_strategy_may_say_little(text, read):
    assert strategy(text) == Strategy(name="mine", **read)


def draft_of(protocols):
    return draft(HEAD + '[[stage]]\nadd = ["text", "video"]\n' + protocols)


def test_a_sound_protocol_means_what_its_file_says():
    said = '[[protocol]]\nname = "one"\nquery = ["text"]\ngallery = ["video"]\nexpected = 9'
    found = draft_of(said)
    assert found.problems == ()
    (protocol,) = found.scenario.protocols
    assert protocol == Protocol(name="one", query=("text",), gallery=("video",), expected=9)
    assert protocol.modalities == ("text", "video")
    assert Scenario.model_validate(found.scenario.model_dump()) == found.scenario


def test_every_mistake_is_told_with_its_place_and_remedy():
    found = draft_of(
        '[[protocol]]\nname = "one"\nquery = ["text"]\ngallery = ["video"]\n'
        '[[protocol]]\nname = "one"\nquery = ["text"]\ngallery = ["video"]\n'
        '[[protocol]]\nname = "two"\ngalery = ["video"]\nquery = ["text"]\n'
    )
    told = [str(problem) for problem in found.problems]
    assert told == [
        "mine.toml, [[protocol]] 2, name: 'one' is the name of an earlier one; "
        "give each protocol a name of its own",
        'mine.toml, [[protocol]] 3, gallery: the key is missing; add gallery = ["video", "audio"]',
        "mine.toml, [[protocol]] 3, galery: unknown key with value ['video']; "
        "did you mean 'gallery'? known are annotations, dataset, expected, gallery, kind, name, "
        "ordered, partial, query, through, through_features, "
        "through_weight",
    ]
    assert [each.name for each in found.scenario.protocols] == ["one", "one"]


def test_protocols_are_a_list_of_tables():
    (told,) = draft_of('[protocol]\nname = "one"').problems
    assert "no list of tables" in told.message
