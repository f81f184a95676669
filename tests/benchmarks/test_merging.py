"""The table of merging: written from the committed results, and measured as it says."""

import csv
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "merging"


@pytest.fixture(scope="module")
def code(modules_of):
    with modules_of("merging", ("run", "tables", "picture")) as modules:
        yield modules


def test_the_table_of_the_page_is_that_of_the_results(code):
    page = (ROOT / "docs" / "merging.md").read_text(encoding="utf-8")
    assert code.tables.table(code.tables.read(FOLDER / "results.csv")) in page


def test_every_way_was_tried_with_every_seed(code):
    recalls = code.tables.read(FOLDER / "results.csv")
    assert {strategy for _, _, strategy, _ in recalls} == {*code.tables.NAMES}
    assert {strategy.name for strategy in code.run.strategies()} == {*code.tables.NAMES}
    assert {tuple(sorted(each)) for each in recalls.values()} == {(0, 1, 2)}
    assert len(recalls) == 2 * 3 * 3 * len(code.tables.NAMES)


def test_a_mean_is_over_scenarios_and_its_spread_over_seeds(code):
    with (FOLDER / "results.csv").open(newline="", encoding="utf-8") as stream:
        rows = [
            float(row["recall"])
            for row in csv.DictReader(stream)
            if (row["form"], row["strategy"], row["role"]) == ("plain", "joint", "new")
        ]
    assert len(rows) == 9
    found = code.tables.over_seeds(
        code.tables.read(FOLDER / "results.csv"), "plain", "joint", "new"
    )
    assert np.mean(found) == pytest.approx(100 * np.mean(rows))
    assert len(found) == 3
