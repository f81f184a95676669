"""The page on adapters: its tables are the figures that were measured, its commands run."""

import shlex
from pathlib import Path
from statistics import mean

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "adapters.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tables(modules_of):
    with modules_of("lora", ("tables",)) as modules:
        yield modules.tables


def test_the_tables_of_the_page_are_those_of_the_figures(tables):
    for table in (tables.pairs(), tables.classes()):
        assert table in PAGE


def test_every_figure_has_the_same_three_seeds(tables):
    pairs = tables.read("pairs.csv", "data", "dim", "method", "measure", "of")
    classes = tables.read("classes.csv", "data", "learning_rate", "method", "split", "scored")
    for values in (*pairs.values(), *classes.values()):
        assert set(values) == {"1", "2", "3"}
        assert all(len(each) == 1 for each in values.values())


def test_adapters_come_near_separate_spaces_and_keep_the_bare_one(tables):
    values = tables.read("pairs.csv", "data", "dim", "method", "measure")

    def recall(space, method, measure="R@1 test"):
        return mean(tables.by_seed(values[*space, method, measure]))

    for space in tables.SPACES:
        one, own = recall(space, "one space"), recall(space, "joint_lora, rank 8")
        assert own > one + 0.5 * (recall(space, "three spaces") - one)
        assert recall(space, "joint_lora, rank 8", tables.BARE) > one - 0.06


def test_the_commands_of_the_page_run_one_after_another(tmp_path, monkeypatch, typed):
    monkeypatch.chdir(tmp_path)
    block = PAGE.split("```sh\n")[1].split("```")[0]
    for line in block.splitlines():
        program, *words = shlex.split(line, comments=True)
        assert program == "continual-mm"
        hurry = ["--set", "training.steps=2"] if words[0] == "run" else []
        assert not typed(*words, *hurry).code, line
