"""What the README shows works as it stands."""

import re
import tomllib
from pathlib import Path

import numpy as np
import torch

from continual_mm.data.narrated_shapes.card import CARD
from continual_mm.definitions.arrivals import plan
from continual_mm.definitions.reading import draft_scenario

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
REAL_DATA = (ROOT / "docs" / "real-data.md").read_text(encoding="utf-8")


def block(language, after="", page=README):
    start = page.index(after)
    found = re.search(rf"```{language}\n(.*?)```", page[start:], flags=re.DOTALL)
    assert found is not None
    return found[1]


def test_the_python_example_runs_and_is_short():
    code = block("python", after="<!-- python example -->")
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 25
    printed = []
    names = {"print": lambda *values: printed.extend(values)}
    exec(compile(code, "README.md", "exec"), names)
    headline, before, after = printed
    assert 0 < headline["harmonic_mean"] <= 1
    assert 0 <= after <= 1
    assert before > 0.1
    assert np.allclose(np.linalg.norm(names["vectors"].numpy(), axis=1), 1, atol=1e-5)


def test_a_store_is_written_and_read_as_the_page_on_real_data_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    code = block("python", after="## Features of your own", page=REAL_DATA)
    exec(compile(code, "real-data.md", "exec"), names)
    dataset = names["dataset"]
    assert dataset.card.items == (800, 100, 100)
    assert dataset.card["audio"].shape == (59, 40)
    assert dataset.columns["video"].take(torch.tensor([3, 4]))[0].shape == (2, 512)


def test_the_scenario_of_the_readme_is_sound():
    document = tomllib.loads(block("toml", after="# Your own scenario".replace("# ", "## ")))
    draft = draft_scenario(document, name="mine", folder=".", file="mine.toml")
    assert not draft.problems
    assert [len(a.trained) for a in plan(draft.scenario, CARD)] == [1, 1]
