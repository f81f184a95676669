"""What the README shows works as it stands."""

import re
import tomllib
from pathlib import Path

import numpy as np

from continual_mm.arrivals import plan
from continual_mm.data.narrated_shapes.card import CARD
from continual_mm.reading import draft_scenario

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def block(language: str, after: str = "") -> str:
    start = README.index(after)
    found = re.search(rf"```{language}\n(.*?)```", README[start:], flags=re.DOTALL)
    assert found is not None
    return found[1]


def test_the_python_example_runs_and_is_short():
    code = block("python", after="<!-- python example -->")
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 25
    printed: list[object] = []
    names: dict[str, object] = {"print": lambda *values: printed.extend(values)}
    exec(compile(code, "README.md", "exec"), names)
    headline, before, after = printed
    assert 0 < headline["harmonic_mean"] <= 1
    assert 0 <= after <= 1
    assert before > 0.1
    assert np.allclose(np.linalg.norm(names["vectors"].numpy(), axis=1), 1, atol=1e-5)


def test_the_scenario_of_the_readme_is_sound():
    document = tomllib.loads(block("toml", after="# Your own scenario".replace("# ", "## ")))
    draft = draft_scenario(document, name="mine", folder=".", file="mine.toml")
    assert not draft.complaints
    assert [len(a.trained) for a in plan(draft.scenario, CARD)] == [1, 1]
