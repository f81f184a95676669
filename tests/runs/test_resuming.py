"""A run that is stopped inside a stage goes on to the same bits, whatever it trains."""

import shutil

import numpy as np
import pytest
import torch
from torch import nn

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.scenario import (
    MemorySettings,
    Scenario,
    SpaceSettings,
    Stage,
    Strategy,
    Training,
)
from continual_mm.runs.reporter import RunReporter
from continual_mm.runs.run import run

SPACE = SpaceSettings(dim=8, clusters=3, refresh_every=4)
TRAINING = Training(steps=6, batch_size=8, learning_rate=1e-2, evaluate_every=4)
REPLAY = Strategy(name="replay", memory=MemorySettings(items=12), plugins={"replay": {"rows": 8}})
NAMES = ("video", "touch", "audio", "text", "smell")


class Stopping(RunReporter):
    """Stops the run after some steps, as a keyboard does."""

    def __init__(self, steps):
        self.left, self.resumed = steps, (0, 0)

    def resumes(self, stage, step):
        self.resumed = (stage, step)

    def steps(self, count):
        self.left -= count
        if not self.left:
            raise KeyboardInterrupt


class Noisy(nn.Module):
    """A module with everything that a resumed run could lose: dice and running statistics."""

    def __init__(self, seed=0, *, always=False):
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.layer = nn.Linear(6, 4)
        self.layer.weight.data = torch.randn(4, 6, generator=rng)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.always = always

    def forward(self, x):
        hidden = self.drop(self.norm(self.layer(x)))
        return nn.functional.dropout(hidden, 0.2, training=self.always or self.training)


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(3)
    shared = rng.standard_normal((90, 5))
    arrays = {name: shared @ rng.standard_normal((5, 6)) for name in NAMES}
    return Dataset.from_arrays(arrays, split=np.repeat([0, 1, 2], 30))


def scenario_of(*stages, **changes):
    return Scenario(**{"name": "s", "space": SPACE, "training": TRAINING, **changes}, stages=stages)


def contents(out, strategy):
    folder = out / "s" / strategy.name / "seed-0"
    wanted = [folder / "scores.json", *folder.glob("checkpoints/*/*.safetensors")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in wanted}


def went_on_alike(scenario, strategy, dataset, out, *, stops, **options):
    """Whether a run that is stopped again and again ends as one that is not."""
    told = {"device": "cpu", "checkpoint_every": 2, **options}
    run(scenario, strategy, dataset, out / "undisturbed", **told)
    for steps in stops:
        with pytest.raises(KeyboardInterrupt):
            run(scenario, strategy, dataset, out / "stopped", reporter=Stopping(steps), **told)
    last = Stopping(-1)
    run(scenario, strategy, dataset, out / "stopped", reporter=last, **told)
    assert last.resumed[1] > 0, "the run did not go on inside a stage: nothing was tested"
    return contents(out / "stopped", strategy) == contents(out / "undisturbed", strategy)


def test_remembered_modalities_that_the_stage_does_not_show_keep_their_order(dataset, tmp_path):
    stages = (
        Stage(add=("video", "touch", "audio")),
        Stage(add=("text",), pairs=()),
        Stage(add=("smell",), pairs=("smell-text",)),
    )
    assert went_on_alike(scenario_of(*stages), REPLAY, dataset, tmp_path, stops=[9, 7])


def test_dice_that_are_rolled_in_evaluation_too_follow_from_the_seed(dataset, tmp_path):
    scenario = scenario_of(Stage(add=("video", "audio"), steps=0), Stage(add=("text",)))
    towers = {"video": Noisy(always=True)}
    torch.manual_seed(1)
    assert went_on_alike(scenario, REPLAY, dataset, tmp_path, stops=[3], towers=towers)


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
def test_a_plugin_of_ones_own_need_not_know_of_checkpoints(name, dataset, tmp_path, monkeypatch):
    package = tmp_path / "installed" / "outside_scaled-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Name: outside-scaled\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(ENTRIES)
    (package.parent / "outside_scaled.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(str(package.parent))
    stages = (Stage(add=("video", "audio")), Stage(add=("text",)), Stage(add=("smell",)))
    strategy = Strategy(name=name, plugins={name: {}})
    assert went_on_alike(scenario_of(*stages), strategy, dataset, tmp_path, stops=[15])


def test_a_checkpoint_that_was_about_to_be_removed_is_removed_by_the_run_that_goes_on(
    dataset, tmp_path
):
    scenario = scenario_of(Stage(add=("video", "audio")))
    told = {"device": "cpu", "checkpoint_every": 2}
    with pytest.raises(KeyboardInterrupt):
        run(scenario, REPLAY, dataset, tmp_path, reporter=Stopping(5), **told)
    places = tmp_path / "s" / "replay" / "seed-0" / "checkpoints"
    shutil.copytree(places / "stage-1-step-4", tmp_path / "kept")
    run(scenario, REPLAY, dataset, tmp_path, **told)
    shutil.copytree(tmp_path / "kept", places / "stage-1-step-4")
    run(scenario, REPLAY, dataset, tmp_path, **told)
    assert [path.name for path in places.iterdir()] == ["stage-1"]
