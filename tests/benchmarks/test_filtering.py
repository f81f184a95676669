"""The page on filtering: its tables are the figures that were measured, its commands run."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from continual_mm.data.pack import read_pack

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "filtering"
PAGE = (ROOT / "docs" / "filtering.md").read_text(encoding="utf-8")
NAMES = ("pools", "tables")


@pytest.fixture(scope="module")
def code(modules_of):
    with modules_of("filtering", NAMES) as modules:
        yield modules


def test_the_tables_of_the_page_are_those_of_the_figures(code):
    values = code.tables.read(FOLDER / "results.csv")
    assert {len(each) for each in values.values()} == {3}
    assert code.tables.precisions(values) in PAGE
    assert code.tables.recalls(values) in PAGE
    assert code.tables.mismatched(FOLDER / "mismatched.csv") in PAGE


def test_what_the_page_concludes_is_in_the_figures(code):
    values = code.tables.read(FOLDER / "results.csv")
    for pool in code.tables.POOLS:
        for share in (0.3, 0.6):
            recalls = {
                by: np.mean(values[pool, "recall@1", share, by])
                for by in ("hype", "cosine", "union", "intersection", "cascade", "chance")
            }
            assert recalls["intersection"] > max(recalls.values()) - 0.0115
            assert min(recalls, key=recalls.get) == "chance"


@pytest.mark.parametrize("pool", ["vague_one_side", "vague_both_sides"])
def test_a_pool_has_the_shares_that_the_page_tells(code, pool, tmp_path):
    code.pools.write(tmp_path / "pool.npz", pool, seed=0)
    dataset = read_pack(tmp_path / "pool.npz", standardise=False)
    quality = dataset.label[:3000]
    shares = {kind: float((quality == kind).mean()) for kind in code.pools.Quality}
    told = {code.pools.Quality.GOOD: 0.4, **code.pools.POOLS[pool]}
    assert shares == pytest.approx({kind: told.get(kind, 0.0) for kind in code.pools.Quality})
    assert not dataset.label[3000:].any()
    words = dataset.columns["text"].lengths[:3000]
    vague = np.isin(quality, (code.pools.Quality.VAGUE_TEXT, code.pools.Quality.VAGUE_BOTH))
    assert set(words[vague]) == {2}
    assert set(words[~vague]) == {8}


def test_the_commands_of_the_page_run_one_after_another(tmp_path, monkeypatch, typed):
    monkeypatch.chdir(tmp_path)
    lines = re.search(r"```sh\n(.*?)```", PAGE, re.DOTALL)[1].splitlines()
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "continual-mm"
        said = typed(*words, "--steps", 2)
        assert said.code == 0, said.err
    assert {"kept.npz", "kept.filter.npz", "fewer.npz"} <= {
        path.name for path in tmp_path.iterdir()
    }
