"""A run that is stopped inside a stage goes on to the same bits, whatever it trains."""

import shutil

import numpy as np
import pytest
import torch
from torch import nn

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.scenario import Stage, Strategy
from continual_mm.runs.run import run

NAMES = ("video", "touch", "audio", "text", "smell")


class Noisy(nn.Module):
    """A module with everything that a resumed run could lose: an RNG and running statistics."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 4)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return nn.functional.dropout(self.drop(self.norm(self.layer(x))), 0.2, training=True)


@pytest.fixture(scope="module")
def dataset(features):
    return Dataset.from_arrays(features(NAMES), split=np.repeat([0, 1, 2], 30))


@pytest.fixture
def resumed_alike(scenario, dataset, tmp_path, stop_at, results):
    """(stages, strategy) -> whether a run that is stopped again and again ends as one that is not.

    It is stopped after so many steps each time.
    """

    def compare(stages, strategy, *, stops, **options):
        definition = scenario.model_copy(update={"stages": tuple(stages)})
        options = {"device": "cpu", "checkpoint_every": 2, **options}
        run(definition, strategy, dataset, tmp_path / "whole", **options)
        for steps in stops:
            with pytest.raises(KeyboardInterrupt):
                reporter = stop_at(steps)
                run(definition, strategy, dataset, tmp_path / "parts", reporter=reporter, **options)
        last = stop_at(-1)
        run(definition, strategy, dataset, tmp_path / "parts", reporter=last, **options)
        assert last.resumed[1] > 0, "the run did not go on inside a stage: nothing was tested"
        return results(tmp_path / "parts") == results(tmp_path / "whole")

    return compare


def test_remembered_modalities_that_the_stage_does_not_show_keep_their_order(resumed_alike, replay):
    stages = (
        Stage(add=("video", "touch", "audio")),
        Stage(add=("text",), pairs=()),
        Stage(add=("smell",), pairs=("smell-text",)),
    )
    assert resumed_alike(stages, replay, stops=[12, 10])


def test_a_tower_that_draws_random_numbers_in_evaluation_too_follows_the_seed(
    resumed_alike, replay
):
    stages = Stage(add=("video", "audio"), steps=0), Stage(add=("text",))
    torch.manual_seed(1)
    assert resumed_alike(stages, replay, stops=[3], towers={"video": Noisy()})


OUTSIDE = """
from avalanche.core import BaseSGDPlugin
from continual_mm import Plugin

class Scaled(Plugin):
    def before_train_dataset_adaptation(self, strategy, *args, **kwargs):
        if strategy.stage == 0:  # set once; as the learner promises, it stays
            strategy.lr_scale = {name: 0.1 for name, _ in strategy.space.named_parameters()}

class Short(BaseSGDPlugin):
    def before_backward(self, strategy, *args, **kwargs):
        squares = sum(value.square().sum() for value in strategy.space.parameters())
        strategy.add_term("short", squares, weight=0.1)
"""
ENTRIES = "[continual_mm.plugins]\nscaled = outside_scaled:Scaled\nshort = outside_scaled:Short\n"


@pytest.mark.parametrize("name", ["scaled", "short"])
def test_a_plugin_of_ones_own_need_not_know_of_checkpoints(
    name, resumed_alike, tmp_path, monkeypatch
):
    package = tmp_path / "installed" / "outside_scaled-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Name: outside-scaled\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(ENTRIES)
    (package.parent / "outside_scaled.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(str(package.parent))
    stages = (Stage(add=("video", "audio")), Stage(add=("text",)), Stage(add=("smell",)))
    strategy = Strategy(name=name, plugins={name: {}})
    assert resumed_alike(stages, strategy, stops=[21])


def test_a_checkpoint_that_was_about_to_be_removed_is_removed_by_the_run_that_goes_on(
    scenario, dataset, replay, tmp_path, stop_at
):
    first = scenario.model_copy(update={"stages": scenario.stages[:1]})
    options = {"device": "cpu", "checkpoint_every": 2}
    with pytest.raises(KeyboardInterrupt):
        run(first, replay, dataset, tmp_path, reporter=stop_at(5), **options)
    places = tmp_path / "small" / "replay" / "seed-0" / "checkpoints"
    shutil.copytree(places / "stage-1-step-4", tmp_path / "kept")
    run(first, replay, dataset, tmp_path, **options)
    shutil.copytree(tmp_path / "kept", places / "stage-1-step-4")
    run(first, replay, dataset, tmp_path, **options)
    assert [path.name for path in places.iterdir()] == ["stage-1"]
