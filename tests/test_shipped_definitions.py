"""Every definition that comes with the project."""

from pathlib import Path

import pytest

from continual_mm.definitions import catalog
from continual_mm.plugins.registry import BUILT_IN
from continual_mm.runs.opening import open_scenario, open_strategy

SCENARIOS = {entry.name: entry for entry in catalog.shipped("scenarios")}
STRATEGIES = {entry.name: entry for entry in catalog.shipped("strategies")}
LETTERS = {"a": "audio", "t": "text", "v": "video"}


def test_all_that_was_promised_is_shipped():
    assert {"av_t", "vt_a", "at_v", "av_vt", "joint_avt", "v_a_t"} <= SCENARIOS.keys()
    bounds, together = (
        {"naive", "joint", "cumulative"},
        {"replay_ewc_transport", "replay_transport"},
    )
    assert {*bounds, *together, "transport_interpolate"} <= STRATEGIES.keys()


@pytest.mark.parametrize("entry", [*SCENARIOS.values(), *STRATEGIES.values()], ids=lambda e: e.name)
def test_each_is_described_in_a_line(entry):
    assert entry.description.endswith(".")
    assert 20 < len(entry.description) < 100
    assert "\n" not in entry.description


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_is_valid_and_trains_a_pair(name):
    opened = open_scenario(SCENARIOS[name])
    assert any(arrival.trained for arrival in opened.arrivals)


@pytest.mark.parametrize("name", ["av_t", "vt_a", "at_v", "v_a_t"])
def test_the_letters_of_a_scenario_say_what_arrives_at_each_stage(name):
    arrivals = open_scenario(SCENARIOS[name]).arrivals
    added = [{modality.name for modality in arrival.added} for arrival in arrivals]
    assert added == [{LETTERS[letter] for letter in part} for part in name.split("_")]
    assert [len(arrival.trained) for arrival in arrivals][-1] == 2


def test_in_av_vt_captions_are_paired_with_video_only():
    first, second = open_scenario(SCENARIOS["av_vt"]).arrivals
    assert list(map(str, first.trained)) == ["audio-video"]
    assert [modality.name for modality in second.added] == ["text"]
    assert list(map(str, second.trained)) == ["text-video"]


def test_in_joint_avt_everything_arrives_at_once():
    (only,) = open_scenario(SCENARIOS["joint_avt"]).arrivals
    assert len(only.trained) == 3


@pytest.mark.parametrize("name", sorted(STRATEGIES.keys() - {"recommended"}))
def test_the_name_of_a_strategy_says_which_plugins_it_has(name):
    strategy = open_strategy(STRATEGIES[name])
    words = [word for word in BUILT_IN if f"_{word}_" in f"_{name}_"]
    assert sorted(strategy.plugins) == sorted(words)
    assert strategy.joint == name.startswith("joint")
    assert strategy.cumulative == name.startswith("cumulative")
    asks = [BUILT_IN[word].rule.asks_for_memory(strategy.plugins[word]) for word in words]
    assert (strategy.memory is not None) == any(asks)


def test_every_plugin_has_a_strategy_of_its_own_unless_it_only_helps_others():
    assert BUILT_IN.keys() - {"rest", "expand", "watch"} <= STRATEGIES.keys()
    assert open_strategy(STRATEGIES["recommended"]).plugins.keys() == {"expand"}


@pytest.mark.parametrize("kind", catalog.DEFINITION_KINDS)
def test_nothing_but_definitions_and_a_readme_lies_beside_them(kind):
    names = {path.name for path in Path(catalog.definitions_folder(kind)).iterdir()}
    assert {name for name in names if not name.endswith(".toml")} <= {"README.md"}
