"""Passes over what a stage trains, instead of steps."""

from itertools import product

import numpy as np
import pytest

from continual_mm.data.dataset import Dataset
from continual_mm.data.pack import read_card, write_pack
from continual_mm.data.store.reader import read_store
from continual_mm.data.store.writer import write_store
from continual_mm.definitions import catalog
from continual_mm.definitions.arrivals import plan
from continual_mm.definitions.modality import DatasetCard, Kind, Modality
from continual_mm.definitions.scenario import Scenario, SpaceSettings, Stage, Training
from continual_mm.learning.loader import StepLoader
from continual_mm.learning.stream import benchmark
from continual_mm.runs.opening import open_scenario
from continual_mm.runs.run import train
from continual_mm.system.errors import InputError

STAGES = (Stage(add=("video", "audio")), Stage(add=("text",)), Stage(add=("depth",)))
SPLIT = np.repeat([0, 1, 2], [50, 3, 3])
GROUP = np.arange(56) % 17


def arrays():
    rng = np.random.default_rng(0)
    names = ("video", "audio", "text", "depth")
    return {name: rng.standard_normal((56, 4)).astype(np.float32) for name in names}


@pytest.mark.parametrize(
    ("items", "clips", "rows"), product(["split", "shared"], [1, 3], [2, 7, 60])
)
def test_so_many_passes_are_as_many_steps_as_the_loader_takes(items, clips, rows):
    dataset = Dataset.from_arrays(arrays(), split=SPLIT, group=GROUP)
    training = Training(epochs=3, batch_size=rows)
    space = SpaceSettings(clips=clips)
    scenario = Scenario(name="s", items=items, space=space, training=training, stages=STAGES)
    arrivals = plan(scenario, dataset.card)
    for stage in benchmark(scenario, arrivals, dataset, seed=1).train:
        loader = StepLoader(stage.items, stage.rows_per_step, steps=1, seed=0)
        assert stage.training.steps == 3 * loader.steps_per_pass


def test_a_stage_may_count_otherwise_than_the_others():
    def lengths(training, **second):
        stages = (STAGES[0], Stage(add=("text",), **second))
        card = DatasetCard("mine", tuple(map(vector, arrays())), (40, 1, 1), "0")
        scenario = Scenario(name="mine", items="shared", training=training, stages=stages)
        return [arrival.training.steps for arrival in plan(scenario, card)]

    passes, steps = Training(epochs=2, batch_size=10), Training(steps=9, batch_size=10)
    assert lengths(passes) == [8, 8]
    assert lengths(passes, steps=5) == [8, 5]
    assert lengths(passes, epochs=1) == [8, 4]
    assert lengths(passes, steps=0) == [8, 0]
    assert lengths(steps, epochs=3) == [9, 12]


def vector(name):
    return Modality(name, Kind.VECTOR, (4,))


def test_steps_and_epochs_at_once_are_refused_and_a_setting_replaces_either(tmp_path):
    columns = {"ids": np.array([f"{n}" for n in range(56)]), "split": SPLIT, **arrays()}
    write_pack(tmp_path / "mine.npz", columns)
    text = 'dataset = "mine.npz"\nitems = "shared"\n[training]\n{}\nbatch_size = 10\n'
    text += '[[stage]]\nadd = ["video", "audio"]\n[[stage]]\nadd = ["text"]\nepochs = 2\n'

    def opened(length, *settings):
        (tmp_path / "mine.toml").write_text(text.format(length), encoding="utf-8")
        entry = catalog.open_definition("scenarios", tmp_path / "mine.toml")
        return [one.training.steps for one in open_scenario(entry, settings).arrivals]

    with pytest.raises(InputError, match="steps are given as well; give one of them"):
        opened("steps = 7\nepochs = 1")
    with pytest.raises(InputError):
        Training(steps=7, epochs=1)
    assert opened("epochs = 1") == [5, 10]
    assert opened("epochs = 1", ("training.steps", "7")) == [7, 10]
    assert opened("steps = 7", ("training.epochs", "3")) == [15, 10]
    assert opened("epochs = 1", ("stage.2.steps", "4")) == [5, 4]


def test_the_steps_of_a_dataset_that_is_missing_are_unknown():
    card = DatasetCard("elsewhere", tuple(map(vector, arrays())), (0, 0, 0), "")
    scenario = Scenario(name="mine", training=Training(epochs=30), stages=STAGES)
    found = [arrival.training for arrival in plan(scenario, card)]
    assert [(one.steps, one.epochs) for one in found] == [(0, 30)] * 3


def test_every_source_counts_the_groups_of_its_training_items(tmp_path):
    given = arrays()
    ids = np.array([f"{n}" for n in range(56)])
    write_pack(tmp_path / "mine.npz", {"ids": ids, "split": SPLIT, "group": GROUP // 16, **given})
    records = (
        {"ids": ids[n], "split": int(SPLIT[n]), "group": f"g{GROUP[n] // 16}", "video": row}
        for n, row in enumerate(given["video"])
    )
    write_store(records, tmp_path / "store", layout=(vector("video"),))
    in_training = len(set((GROUP // 16)[SPLIT == 0]))
    assert in_training == 2
    assert read_card(tmp_path / "mine.npz").groups == in_training
    assert read_store(tmp_path / "store").card.groups == in_training
    assert Dataset.from_arrays(given, split=SPLIT, group=GROUP // 16).card.groups == in_training
    assert Dataset.from_arrays(given, split=SPLIT).card.groups == 0


def test_training_ends_after_so_many_passes():
    dataset = Dataset.from_arrays(arrays(), split=SPLIT)
    training, space = Training(epochs=2, batch_size=5), SpaceSettings(dim=4, clusters=0)
    scenario = Scenario(name="passes", space=space, training=training, stages=STAGES)
    history = train(scenario, dataset, device="cpu")
    # 17, 17 and 16 items in each share.
    assert max(score.step for score in history.scores) == 2 * (3 + 3 + 3)
