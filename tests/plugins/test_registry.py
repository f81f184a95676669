"""Which plugins there are and what strategy files may say of them."""

from inspect import Parameter, signature

import pytest

from continual_mm.definitions.catalog import open_definition
from continual_mm.definitions.scenario import MemorySettings, Strategy
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.registry import BUILT_IN, build, outside, rules
from continual_mm.runs.opening import open_strategy
from continual_mm.system.errors import InputError

OUTSIDE = '''
from continual_mm.plugins.plugin import Plugin


class Hold(Plugin):
    """Needs no memory."""

    def __init__(self, *, grip: float = 1.0, copy: bool = False) -> None:
        super().__init__()
        if grip < 0:
            raise ValueError(f"hold.grip = {grip}: give at least 0")
        self.grip = grip


class Keep(Plugin):
    """Needs a memory, and takes its parameter by position too."""

    needs_memory = True

    def __init__(self, rows: int = 3) -> None:
        super().__init__()
        self.memory_rows = rows
'''
ENTRY_POINTS = """
[continual_mm.plugins]
hold = outside_plugins:Hold
keep = outside_plugins:Keep
gone = outside_plugins:Gone
missing = outside_plugins_that_are_missing:Missing
replay = outside_plugins:Keep
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that offers plugins."""
    info = tmp_path / "outside_plugins-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-plugins\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "outside_plugins.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def opened(folder, text):
    path = folder / "mine.toml"
    path.write_text(text)
    return open_strategy(open_definition("strategies", path))


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_file_may_say_what_the_constructor_takes(name):
    plugin = build(Strategy(name="x", plugins={name: {}}))[name]
    assert isinstance(plugin, Plugin)
    parameters = signature(type(plugin)).parameters
    assert {p.kind for p in parameters.values()} <= {Parameter.KEYWORD_ONLY}
    assert parameters.keys() == BUILT_IN[name].rule.parameters.keys()
    assert BUILT_IN[name].rule.needs_memory == (plugin.memory_rows > 0 or plugin.needs_memory)


def test_plugins_keep_the_order_of_the_file_and_get_its_parameters(tmp_path):
    text = "[memory]\nitems = 4\n[transport]\nweight = 2\nepsilon = 0.5\nrows = 9\n[ewc]\n[replay]"
    made = build(opened(tmp_path, text))
    assert list(made) == ["transport", "ewc", "replay"]
    plugin = made["transport"]
    assert (plugin.weight, plugin.epsilon, plugin.memory_rows) == (2.0, 0.5, 9)


def test_an_installed_package_offers_plugins_by_name(package):
    assert {"hold", "keep", "gone"} <= outside().keys()
    assert outside()["hold"].value == "outside_plugins:Hold"
    strategy = opened(package, "[memory]\nitems = 4\n[hold]\ngrip = 2.5\n[keep]\nrows = 7")
    assert strategy.memory == MemorySettings(items=4)
    made = build(strategy)
    assert made["hold"].grip == 2.5
    assert made["keep"].memory_rows == 7


def test_what_comes_from_outside_does_not_replace_what_is_built_in(package):
    assert "replay" not in outside()
    assert type(build(Strategy(name="x", plugins={"replay": {}}))["replay"]).__name__ == "Replay"


def test_a_plugin_from_outside_is_held_to_its_own_constructor(package):
    assert rules(["hold", "keep"])["hold"].parameters.keys() == {"grip", "copy"}
    assert rules(["keep"])["keep"].needs_memory
    with pytest.raises(InputError, match=r"\[hold\], gripp: unknown key.*did you mean 'grip'"):
        opened(package, "[hold]\ngripp = 1")
    with pytest.raises(InputError, match=r"\[memory\]: the table is missing.*\[keep\]"):
        opened(package, "[keep]")
    with pytest.raises(InputError, match=r"'mine', \[hold\]: hold.grip = -1"):
        build(opened(package, "[hold]\ngrip = -1"))


@pytest.mark.parametrize("name", ["gone", "missing"])
def test_a_plugin_that_cannot_be_imported_is_refused_by_name(name, package):
    with pytest.raises(InputError, match=rf"plugin '{name}' \(outside_.*cannot be imported"):
        opened(package, f"[{name}]")


def test_a_plugin_that_no_package_offers_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"\[repaly\]: unknown table; did you mean 'replay'\?"):
        opened(tmp_path, "[repaly]")
    with pytest.raises(InputError, match="plugin 'repaly': is not installed"):
        build(Strategy(name="x", plugins={"repaly": {}}))
