"""Corpora that share one modality: a pair that never meets is left unscored, all else is not."""

import json

import numpy as np
import pytest

import continual_mm as cm
from continual_mm.comparison import tables
from continual_mm.comparison.compare import compare
from continual_mm.comparison.export import export
from continual_mm.definitions.modality import Pair
from continual_mm.system.errors import InputError

SPLIT = np.tile(np.repeat([0, 1, 2], [28, 4, 18]), 2)
FIRST = np.arange(100) < 50
STRATEGIES = {
    "naive": cm.Strategy(name="naive"),
    "joint": cm.Strategy(name="joint", joint=True),
    "expand": cm.Strategy(name="expand", plugins={"expand": {"rank": 2}}),
}


@pytest.fixture(scope="module")
def corpora():
    """(corpora by item) -> sounds with images, then texts with images."""
    rng = np.random.default_rng(5)
    shared = rng.standard_normal((100, 4))
    arrays = {name: shared @ rng.standard_normal((4, 5)) for name in ("audio", "image", "text")}

    def make(first=FIRST, second=~FIRST):
        present = {"audio": first, "text": second}
        return cm.Dataset.from_arrays(arrays, split=SPLIT, present=present, name="both")

    return make


@pytest.fixture(scope="module")
def scenario():
    return cm.Scenario(
        name="bound",
        space=cm.SpaceSettings(dim=8, clusters=3),
        training=cm.Training(steps=5, batch_size=8),
        stages=(cm.Stage(add=("image", "audio")), cm.Stage(add=("text",), pairs=("image-text",))),
    )


@pytest.fixture(scope="module")
def runs(scenario, corpora, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    for strategy in STRATEGIES.values():
        cm.run(scenario, strategy, corpora(), out, device="cpu")
    return out


def test_the_pair_is_in_no_score_and_no_mean_and_a_line_says_so(runs, tmp_path):
    for name in STRATEGIES:
        found = json.loads((runs / "bound" / name / "seed-0" / "scores.json").read_text())
        assert found["unscored"] == ["audio-text"]
        assert set(found["pairs"]) == {"audio-image", "image-text"}
        assert {one["pair"] for one in found["evaluations"]} == {"audio-image", "image-text"}
        assert found["stages"][1]["items"]["image-text"] in range(2, 29)
    compared = compare([runs])
    export([runs], tmp_path / "small")
    for one in (compared, compare([tmp_path / "small"])):
        assert any("audio-text: not scored" in note for note in one.notes)
        rows = one.reports["bound"].rows
        assert {row.strategy for row in rows} == set(STRATEGIES)
        assert all(row.headline.old_pairs and row.headline.new_pairs for row in rows)
        assert all(row.headline.emergent_pairs is None for row in rows)
        naive = next(row for row in rows if row.strategy == "naive")
        assert naive.headline.forgetting is not None


def test_a_score_of_a_single_test_item_is_marked(scenario, corpora, tmp_path):
    one = ~FIRST & ((SPLIT != 2) | (np.arange(100) == 99))
    history = cm.run(scenario, STRATEGIES["naive"], corpora(second=one), tmp_path, device="cpu")
    assert history.recall("image-text") == 1.0  # there is nothing to be confused with
    compared = compare([tmp_path])
    (table,) = tables.scenario_tables(compared)
    assert ("new %*" in table.headings, "old %" in table.headings) == (True, True)
    assert (
        "bound: * image-text (new): only 1 test item has both modalities: R@1 in a random order is"
        " 100.0 %"
    ) in compared.notes


def test_a_share_of_the_seed_that_teaches_nothing_of_a_pair_is_refused(scenario, corpora):
    few = ~FIRST & ((SPLIT != 0) | np.isin(np.arange(100), [50, 51]))
    with pytest.raises(
        InputError, match=r"seed \d, stage 2: (none|1) of its share of the training"
    ):
        for seed in range(9):
            cm.train(scenario, corpora(second=few), seed=seed, device="cpu")
    paired = scenario.model_copy(update={"items": "paired"})
    history = cm.train(paired, corpora(second=few), device="cpu")
    assert history.items[1] == {Pair("image", "text"): 2}


def test_a_pair_that_only_test_items_have_is_scored_on_them(scenario, corpora):
    both = (SPLIT == 2) & (np.arange(100) % 2 == 0)
    history = cm.train(scenario, corpora(FIRST | both, ~FIRST | both), device="cpu")
    assert history.unscored == ()
    assert np.isfinite(history.headline()["emergent_pairs"])
    assert np.isnan(history.headline(split="validation")["emergent_pairs"])
    assert np.isfinite(history.headline(split="validation")["forgetting"])
