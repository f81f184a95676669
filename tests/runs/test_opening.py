"""From what a user names to checked definitions."""

from pathlib import Path

import numpy as np
import pytest

from continual_mm.data.pack import write_pack
from continual_mm.definitions import catalog
from continual_mm.definitions.scenario import MemorySettings
from continual_mm.runs.opening import open_scenario, open_strategies, read_settings
from continual_mm.system.errors import InputError

SENSES = """
dataset = "packs/senses.npz"
[training]
steps = 20
[[stage]]
add = ["touch", "smell"]
[[stage]]
add = ["taste", "sight2"]
pairs = ["taste-smell", "sight2-touch"]
"""


@pytest.fixture
def pack(tmp_path):
    """Four modalities that no one has heard of."""
    path = tmp_path / "packs" / "senses.npz"
    path.parent.mkdir()
    names = ("touch", "smell", "taste", "sight2")
    columns = {name: np.arange(12.0).reshape(6, 2) for name in names}
    write_pack(path, {**columns, "ids": np.array(list("abcdef")), "split": np.arange(6) // 2})
    return path


def entry(folder, text, kind="scenarios", name="mine"):
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return catalog.open_definition(kind, path)


def shipped(*names):
    return [catalog.find("strategies", name) for name in names]


def places(error):
    return [problem.place for problem in error.value.problems]


def test_modalities_are_whatever_the_pack_beside_the_file_names(pack):
    opened = open_scenario(entry(pack.parents[1], SENSES))
    assert opened.card.names == ("touch", "smell", "taste", "sight2")
    assert opened.card.items == (2, 2, 2)
    first, second = opened.arrivals
    assert list(map(str, first.trained)) == ["smell-touch"]
    assert list(map(str, second.trained)) == ["sight2-touch", "smell-taste"]
    assert Path(opened.scenario.folder) / opened.scenario.dataset == pack


def test_mistakes_in_tables_and_about_the_dataset_are_reported_together(pack):
    text = SENSES.replace("steps = 20", "stpes = 20").replace('"smell"]', '"smel", "touch"]')
    with pytest.raises(InputError) as caught:
        open_scenario(entry(pack.parents[1], "colour = 1\n" + text))
    file = pack.parents[1] / "mine.toml"
    assert places(caught) == [
        f"{file}, colour",
        f"{file}, [training], stpes",
        f"{file}, [[stage]] 1, add",
        f"{file}, [[stage]] 1, add",
        f"{file}, [[stage]] 2, pairs",
    ]
    told = str(caught.value)
    assert "no modality 'smel' in dataset 'senses'; did you mean 'smell'?" in told
    assert "modality 'touch' is added a second time" in told
    assert "pair 'taste-smell' is not available yet: smell did not arrive" in told


def test_a_dataset_that_is_not_there_hides_no_other_mistake(tmp_path):
    text = SENSES.replace("steps = 20", "steps = 0").replace('"smell"]', '"touch"]')
    with pytest.raises(InputError) as caught:
        open_scenario(entry(tmp_path, text))
    file = tmp_path / "mine.toml"
    assert places(caught) == [
        f"{file}, [training], steps",
        f"{file}, dataset 'packs/senses.npz'",
        f"{file}, [[stage]] 1, add",
        f"{file}, [[stage]] 2, pairs",
    ]
    assert f"no file {tmp_path / 'packs/senses.npz'}" in str(caught.value)


def test_settings_change_the_scenario_and_only_theirs(pack):
    settings = {"training.steps": 7, "stage.2.steps": 3, "space.dim": 8, "transport.weight": 2}
    settings = [(key, str(value)) for key, value in settings.items()]
    opened = open_scenario(entry(pack.parents[1], SENSES), settings)
    assert [arrival.training.steps for arrival in opened.arrivals] == [7, 3]
    assert opened.scenario.space.dim == 8


def test_a_dataset_given_as_a_setting_starts_where_the_user_stands(pack, monkeypatch):
    elsewhere = pack.parents[1] / "elsewhere"
    elsewhere.mkdir()
    mine = entry(elsewhere, SENSES)
    monkeypatch.chdir(pack.parent)
    with pytest.raises(InputError):
        open_scenario(mine)
    opened = open_scenario(mine, [("dataset", "senses.npz")])
    assert opened.card.name == "senses"
    assert (Path(opened.scenario.folder) / opened.scenario.dataset).samefile(pack)


def test_a_wrong_setting_is_told_as_one(pack):
    with pytest.raises(InputError) as caught:
        open_scenario(entry(pack.parents[1], SENSES), [("training.steps", "-1")])
    (place,) = places(caught)
    assert place.endswith("mine.toml with --set training.steps, [training], steps")


def test_a_setting_changes_every_strategy_that_has_its_table():
    settings = [("transport.weight", "1"), ("memory.items", "5"), ("training.steps", "3")]
    naive, transport, replay = open_strategies(shipped("naive", "transport", "replay"), settings)
    assert naive.plugins == {}
    assert naive.memory is None
    assert transport.plugins["transport"]["weight"] == 1.0
    assert transport.memory == replay.memory == MemorySettings(items=5)
    (untouched,) = open_strategies(shipped("replay"), [])
    assert replay.plugins == untouched.plugins


@pytest.mark.parametrize("path", ["tranport.weight", "transport.weight", "joint", "name", ".x", ""])
def test_a_setting_that_reaches_nothing_is_refused(path):
    with pytest.raises(InputError) as caught:
        open_strategies(shipped("naive", "replay"), [(path, "1"), ("replay.weight", "2")])
    assert places(caught) == [f"--set {path}"]
    assert "(naive, replay)" in str(caught.value)
    assert "there are dataset, description, items, memory" in str(caught.value)


def test_mistakes_in_several_strategies_are_told_together(tmp_path):
    entries = [
        entry(tmp_path, "[repaly]", "strategies", "first"),
        entry(tmp_path, "[ewc]\nweight = -1", "strategies", "second"),
    ]
    with pytest.raises(InputError) as caught:
        open_strategies(entries, [("nothing.x", "1")])
    assert places(caught) == [
        "--set nothing.x",
        f"{tmp_path / 'first.toml'}, [repaly]",
        f"{tmp_path / 'second.toml'}, [ewc], weight",
    ]


def test_settings_are_taken_apart_at_the_first_equals_sign_and_need_key_and_value():
    assert read_settings(["a.b=c=d", " x = 1 ", "y="]) == [("a.b", "c=d"), ("x", "1"), ("y", "")]
    with pytest.raises(InputError) as caught:
        read_settings(["steps", "=3", "a=1", " =2"])
    assert places(caught) == ["--set steps", "--set =3", "--set  =2"]
    assert "training.steps=50" in str(caught.value)
