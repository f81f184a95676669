"""From a file's contents to a definition."""

import tomllib
from typing import Any

import pytest

from continual_mm.definitions.catalog import SCENARIO_KEYS
from continual_mm.definitions.reading import ScenarioDraft, draft_scenario, read_strategy
from continual_mm.definitions.rules import Number, PluginRule
from continual_mm.definitions.scenario import (
    MemorySettings,
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


def draft(text: str) -> ScenarioDraft:
    return draft_scenario(tomllib.loads(text), name="mine", folder="here", file="mine.toml")


def told(text: str) -> list[str]:
    return [str(problem) for problem in draft(text).problems]


def strategy(text: str) -> Strategy:
    return read_strategy(tomllib.loads(text), name="mine", file="mine.toml", rules=RULES)


def refusals(text: str) -> list[str]:
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


def test_a_sound_scenario_means_what_its_file_says() -> None:
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


def test_reference_mode_brings_the_published_training_along() -> None:
    found = draft(REFERENCE)
    assert found.problems == ()
    read = found.scenario
    assert read.training == Training.published(steps=5, learning_rate=0.01)
    assert read.training_of(1) == Training.published(steps=5, learning_rate=0.01, clip_norm=1.0)
    assert not read.standardise
    assert (read.space.dim, read.space.clusters) == (8, 256)
    assert draft("standardise = true\n" + REFERENCE).scenario.standardise


def test_what_means_nothing_in_reference_mode_is_told_with_a_remedy() -> None:
    (line,) = told(REFERENCE.replace("dim = 8", "scale = 8.0"))
    assert line.startswith(
        "mine.toml, [space], scale: 8.0 has no meaning in reference mode; remove"
    )
    (line,) = told(REFERENCE.replace('mode = "reference"', "cluster_mean = true"))
    assert line.startswith(
        "mine.toml, [space], cluster_mean: the key has a meaning in reference mode only"
    )
    (line,) = told(REFERENCE.replace("dim = 8", 'bugs = ["two_over_two"]'))
    assert "[space], bugs: 'two_over_two' cannot be used; give 'stays_in_evaluation'" in line


def test_everything_wrong_with_a_scenario_is_told_at_once() -> None:
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
    places = [line.split(":")[0] for line in told(text)]
    assert sorted(places) == sorted(
        f"mine.toml, {place}"
        for place in (
            "colour",
            "items",
            "[spcae]",
            "dataset",
            "[space], dim",
            "[space], hue",
            "[training], steps",
            "[[stage]] 1, add",
            "[[stage]] 2, add",
            "[[stage]] 2, stpes",
            "[[stage]] 3, pairs",
        )
    )


@pytest.mark.parametrize("stages", ["", "stage = []", "stage = 3", '[stage]\nadd = ["touch"]'])
def test_without_a_list_of_stages_it_is_told_how_to_write_one(stages: str) -> None:
    (line,) = told(f'dataset = "senses.npz"\n{stages}')
    assert line.startswith("mine.toml, [[stage]]: ")
    assert "write [[stage]], in double brackets" in line


@pytest.mark.parametrize("dataset", ["", 'dataset = ""'])
def test_a_scenario_without_a_dataset_is_told_what_to_add(dataset: str) -> None:
    (line,) = told(f'{dataset}\n[[stage]]\nadd = ["touch"]')
    assert line.startswith("mine.toml, dataset: no dataset is named; add dataset = ")


def test_a_dataset_of_another_type_is_told_once() -> None:
    (line,) = told('dataset = 3\n[[stage]]\nadd = ["touch"]')
    assert line == "mine.toml, dataset: 3 cannot be used; give a text in quotes"


@pytest.mark.parametrize(
    ("stage", "add", "pairs"),
    [
        ('add = "touch"', ("touch",), None),
        ('add = ["touch", 3]\npairs = ["taste-touch", 3]', ("touch",), ("taste-touch",)),
        ('add = ["touch"]\nsteps = -1\npairs = []', ("touch",), ()),
        ('add = ["touch"]\npairs = 3', ("touch",), None),
        ("add = []", (), None),
    ],
)
def test_names_are_made_out_even_where_a_stage_is_faulty(
    stage: str, add: tuple[str, ...], pairs: tuple[str, ...] | None
) -> None:
    found = draft(f'dataset = "senses.npz"\n[[stage]]\n{stage}')
    assert found.problems
    (read,) = found.scenario.stages
    assert (read.add, read.pairs) == (add, pairs)


def test_what_stands_at_the_top_of_a_scenario_is_known_in_one_place() -> None:
    tables = {"space", "training", "tower", "stage", "protocol"}
    assert ScenarioHead.model_fields.keys() | tables == SCENARIO_KEYS


def test_a_sound_strategy_means_what_its_file_says() -> None:
    text = 'description = "Both."\n[hold]\ngrip = 3\n[memory]\nitems = 7\n[keep]\nrows = 4'
    read = strategy(text)
    assert read.description == "Both."
    assert read.memory == MemorySettings(items=7)
    assert read.plugins == {"hold": {"grip": 3.0}, "keep": {"rows": 4}}
    assert list(read.plugins) == ["hold", "keep"]
    assert not read.joint


def test_an_empty_strategy_is_naive_training() -> None:
    assert strategy("") == Strategy(name="mine")


def test_joint_training_is_a_word_of_its_own() -> None:
    assert strategy("joint = true").joint


def test_everything_wrong_with_a_strategy_is_told_at_once() -> None:
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


@pytest.mark.parametrize("value", ["'1'", "true", "nan", "inf", "-inf", "-0.1", "[1]"])
def test_a_parameter_that_is_no_finite_number_in_range_is_refused(value: str) -> None:
    (line,) = refusals(f"[memory]\nitems = 1\n[keep]\nweight = {value}")
    assert line.startswith("mine.toml, [keep], weight: ")


def test_a_plugin_that_needs_memory_says_so() -> None:
    (line,) = refusals("[keep]")
    assert line.startswith("mine.toml, [memory]: the table is missing")
    assert "[keep]" in line
    assert "items = 128" in line


@pytest.mark.parametrize("text", ["[lean]", "[lean]\nown = 0"])
def test_a_plugin_that_can_do_without_memory_needs_it_as_long_as_it_does_not(text: str) -> None:
    (line,) = refusals(text)
    assert line.startswith("mine.toml, [memory]: the table is missing")
    assert strategy("[lean]\nown = 0.5").memory is None


def test_a_parameter_may_have_an_upper_bound() -> None:
    assert strategy("[lean]\nown = 1").plugins == {"lean": {"own": 1.0}}
    (line,) = refusals("[memory]\nitems = 1\n[lean]\nown = 1.01")
    assert line == "mine.toml, [lean], own: 1.01 cannot be used; give at most 1"


def test_joint_training_beside_anything_else_is_refused() -> None:
    (line,) = refusals('joint = true\ndescription = "x"\n[hold]\n[memory]\nitems = 3')
    assert line.startswith("mine.toml, joint: ")
    assert line.endswith("remove [hold], [memory], or joint = true")


def test_joint_training_beside_what_says_how_pairs_are_trained_is_fine() -> None:
    assert strategy("joint = true\n[aim]\nweight = 2.0").plugins == {"aim": {"weight": 2.0}}


def test_cumulative_training_excludes_the_same_and_joint_training() -> None:
    assert strategy("cumulative = true").cumulative
    (line,) = refusals("cumulative = true\n[memory]\nitems = 3")
    assert line.startswith("mine.toml, cumulative: ")
    assert line.endswith("remove [memory], or cumulative = true")
    (line,) = refusals("cumulative = true\njoint = true")
    assert line.endswith("remove cumulative = true, or joint = true")


@pytest.mark.parametrize("text", ["[[hold]]\ngrip = 1", "hold = 1"])
def test_a_plugin_is_a_table(text: str) -> None:
    (line,) = refusals(text)
    assert line.startswith("mine.toml, [hold]: ")
    assert "is not a table" in line


def test_a_parameter_may_bear_any_name() -> None:
    read = strategy('[odd]\ncopy = 1\nmodel_config = "x"')
    assert read.plugins == {"odd": {"copy": 1, "model_config": "x"}}


def test_what_is_neither_yes_nor_names_is_told_with_its_value() -> None:
    (line,) = told('standardise = "touch"\n' + REFERENCE)
    assert line.startswith(
        "mine.toml, standardise: 'touch' is neither true or false nor names; give true"
    )
