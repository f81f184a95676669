"""The page on the early warning: its table is that of the figures, and says what it concludes."""

from pathlib import Path

import pytest
from scipy.stats import spearmanr

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "why-it-forgot.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def code(modules_of):
    with modules_of("watch", ("picture",)) as modules:
        yield modules.picture


def test_the_table_of_the_page_is_that_of_the_figures(code):
    names, drift, lost = code.read()
    assert code.table(drift, lost) in PAGE
    assert len(set(names)) == 5
    correlation = spearmanr(drift, lost).statistic
    assert f"{len(drift)} evaluations" in PAGE
    assert f"rank correlation of {correlation:.2f}" in PAGE


def test_about_a_seventh_is_lost_where_it_warns_by_default(code):
    _, drift, lost = code.read()
    near = lost[(drift > 0.08) & (drift < 0.12)]
    assert near.mean() == pytest.approx(1 / 7, abs=0.03)
