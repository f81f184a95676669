"""Datasets by name or by path."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from continual_mm.data import registry
from continual_mm.data.pack import write_pack
from continual_mm.system.errors import InputError


@pytest.fixture
def pack(tmp_path):
    path = tmp_path / "packs" / "mine.npz"
    path.parent.mkdir()
    rows = np.arange(12.0).reshape(6, 2)
    ids = np.array(list("abcdef"))
    write_pack(path, {"audio": rows, "ids": ids, "split": np.array([0, 0, 0, 0, 1, 2])})
    return path


def test_a_path_is_relative_to_the_folder_of_the_scenario(pack, monkeypatch):
    card = registry.card("packs/mine.npz", folder=pack.parents[1])
    assert card.name == "mine"
    assert registry.card("../packs/mine.npz", folder=pack.parent) == card
    assert registry.card(str(pack), folder=Path("elsewhere")) == card
    assert registry.load("packs/mine.npz", folder=pack.parents[1]).card == card
    monkeypatch.chdir(pack.parent)
    assert registry.card("mine.npz") == card
    monkeypatch.setenv("HOME", str(pack.parents[1]))
    assert registry.card("~/packs/mine.npz", folder=Path("elsewhere")) == card


def test_a_registered_card_waits_for_no_generator():
    code = """
import sys
from continual_mm.data import registry
for name in registry.REGISTERED:
    if registry.card(name).name != name or {"torch", "numpy", "gensim"} & sys.modules.keys():
        sys.exit(name)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_an_unknown_dataset_is_refused_with_the_names_and_the_path_tried(tmp_path):
    for ask in (registry.card, registry.load):
        with pytest.raises(InputError) as caught:
            ask("narated_shapes", folder=tmp_path)
        message = str(caught.value)
        assert "registered: narrated_shapes" in message
        assert f"no file {tmp_path / 'narated_shapes'}" in message
        assert "did you mean 'narrated_shapes'?" in message


def test_a_generated_dataset_has_the_card_that_was_known_before_it_was_made():
    loaded = registry.load("narrated_shapes")
    assert loaded.card == registry.card("narrated_shapes")
    assert tuple(loaded.columns) == loaded.card.names
