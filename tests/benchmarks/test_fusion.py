"""The page on fusing: its tables are the figures that were measured, and say what it concludes."""

from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "fusion.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def code(modules_of):
    with modules_of("fusion", ("tables",)) as modules:
        yield modules


@pytest.fixture(scope="module")
def values(code):
    return code.tables.read(ROOT / "benchmarks" / "fusion" / "results.csv")


def test_the_tables_of_the_page_are_those_of_the_figures(code, values):
    assert {len(each) for each in values.values()} == {2}
    assert code.tables.variants(values) in PAGE
    for order, (old, new) in code.tables.ORDERS.items():
        assert code.tables.strategies(values, order, old, new) in PAGE


def test_what_the_page_concludes_is_in_the_figures(values):
    def mean(space, measure):
        return np.mean(values["avt", space, "naive", measure])

    for measure in ("both", "lacking"):
        assert mean("fusion", measure) > 1.5 * mean("fusion_pairs", measure)
        seeds = [values["avt", space, "naive", measure] for space in ("fusion", "mcn")]
        assert min(seeds[0]) < max(seeds[1])
        assert min(seeds[1]) < max(seeds[0])
    for space in ("mcn", "fusion"):
        kept = (values["vt_a", space, "freeze", f"{when} text-video"] for when in ("before", "old"))
        assert next(kept) == next(kept)
    joint = [np.mean(values["av_t", space, "joint", "both"]) for space in ("mcn", "fusion")]
    grown = [np.mean(values["av_t", space, "recommended", "both"]) for space in ("mcn", "fusion")]
    assert joint[1] > joint[0]
    assert grown[1] < grown[0] / 2
