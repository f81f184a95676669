"""A run's space as one pair sees it: the run's own scores say whether it is right."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from continual_mm.data.dataset import Dataset, Split
from continual_mm.definitions.scenario import Scenario, SpaceSettings, Stage, Strategy, Training
from continual_mm.runs.run import open_run, run
from continual_mm.system.errors import InputError


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    rng = np.random.default_rng(1)
    shared = rng.standard_normal((160, 6))
    arrays = {
        name: (shared @ rng.standard_normal((6, size))).astype(np.float32)
        for name, size in (("video", 8), ("audio", 7), ("text", 5))
    }
    return Dataset.from_arrays(arrays, split=np.repeat([0, 1, 2], [80, 20, 60]))


@pytest.fixture(scope="module")
def folder(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    scenario = Scenario(
        name="adapted",
        standardise=False,
        space=SpaceSettings(dim=16, clusters=0, feature_dropout=0.0),
        training=Training(steps=25, batch_size=20, learning_rate=1e-2),
        stages=(Stage(add=("video", "audio")), Stage(add=("text",), pairs=("video-text",))),
    )
    out = tmp_path_factory.mktemp("runs")
    strategy = Strategy(name="lora", plugins={"pair_lora": {"rank": 3, "alpha": 5.0}})
    run(scenario, strategy, dataset, out, device="cpu")
    return out / "adapted" / "lora" / "seed-0"


def first_ranks(space, dataset: Dataset, query: str, gallery: str) -> np.ndarray:
    """Rank of each test query's partner, counted here."""
    rows = dataset.rows_of(Split.TEST)
    sides = [space.encode(n, dataset.columns[n].values[rows]) for n in (query, gallery)]
    similarity = sides[0] @ sides[1].T
    return (similarity > similarity.diagonal()[:, None]).sum(1).numpy()


def test_a_pair_is_found_as_the_run_has_scored_it(folder, dataset):
    scored = np.load(folder / "ranks" / "stage-2.npz")
    pair, bare = open_run(folder, pair="video-text"), open_run(folder)
    for sides in (("video", "text"), ("text", "video")):
        expected = scored[f"test/text-video/{' to '.join(sides)}"]
        assert np.array_equal(first_ranks(pair, dataset, *sides), expected)
        assert not np.array_equal(first_ranks(bare, dataset, *sides), expected)
    assert pair.state_dict().keys() == bare.state_dict().keys()


def test_a_pair_without_adapters_sees_the_bare_towers(folder):
    old, bare = open_run(folder, pair="video-audio"), open_run(folder)
    for name, value in bare.state_dict().items():
        assert torch.equal(value, old.state_dict()[name])


@pytest.mark.parametrize(("wrong", "told"), [("smell-text", "smell"), ("video", "hyphen")])
def test_what_is_no_pair_of_the_space_is_refused(wrong, told, folder):
    with pytest.raises(InputError, match=rf"{told}.*video, audio, text"):
        open_run(folder, pair=wrong)


def test_without_peft_only_a_pair_with_adapters_is_refused(folder, monkeypatch):
    monkeypatch.delitem(sys.modules, "continual_mm.plugins.pair_lora", raising=False)
    monkeypatch.setitem(sys.modules, "peft", None)
    open_run(folder)
    open_run(folder, pair="video-audio")
    with pytest.raises(InputError, match=r"peft is not installed; pip install 'continual-mm\[l"):
        open_run(folder, pair="video-text")
