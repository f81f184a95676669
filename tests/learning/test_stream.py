"""Which items each stage gets."""

import numpy as np
import pytest
import torch

from continual_mm.data.dataset import Dataset, Split
from continual_mm.definitions.arrivals import plan
from continual_mm.definitions.scenario import Scenario, SpaceSettings, Stage, Training
from continual_mm.learning.stream import benchmark
from continual_mm.system.errors import InputError
from continual_mm.system.seeds import seed_for

STAGES = 3


def dataset(items):
    rng = np.random.default_rng(items)
    return Dataset.from_arrays(
        {name: rng.random((items, 2)) for name in ("video", "audio", "text", "touch")},
        split=rng.permutation(np.repeat([0, 1, 2], [items - 8, 4, 4])),
        group=rng.integers(-5, items // 4, size=items) * 7,
    )


def scenario(clips):
    return Scenario(
        name="dealt",
        items="split",
        space=SpaceSettings(dim=4, clusters=2, clips=clips),
        training=Training(steps=1, batch_size=2 * clips),
        stages=(Stage(add=("video", "audio")), Stage(add=("text",)), Stage(add=("touch",))),
    )


def dealt_before(source, seed, *, together):
    """The rows of each stage as they were dealt at first, by sets of numbers."""
    rows = torch.from_numpy(source.rows_of(Split.TRAIN))
    group = torch.from_numpy(source.group)[rows] if together else torch.arange(rows.shape[0])
    _, number = torch.unique(group, return_inverse=True)
    rng = torch.Generator().manual_seed(seed_for(seed, "shares"))
    mixed = torch.randperm(int(number.max()) + 1, generator=rng)
    return [rows[torch.isin(number, share)] for share in mixed.tensor_split(STAGES)]


@pytest.mark.parametrize("clips", [1, 2])
@pytest.mark.parametrize("items", [40, 101, 1000])
def test_stages_get_the_same_items_as_ever(items, clips):
    source, definition = dataset(items), scenario(clips)
    for seed in (0, 7):
        streams = benchmark(definition, plan(definition, source.card), source, seed=seed)
        expected = dealt_before(source, seed, together=clips > 1)
        for stage, rows in zip(streams.train, expected, strict=True):
            assert torch.equal(stage.items.shares[0].rows, rows)


def test_with_paired_items_a_stage_sees_those_that_have_a_pair_of_it(scenario, changed):
    present = {
        name: np.arange(120) % 3 != lacking
        for name, lacking in (("video", 0), ("audio", 1), ("text", 2), ("depth", 3))
    }
    rng = np.random.default_rng(2)
    arrays = {name: rng.normal(size=(120, 4)) for name in present}
    split = np.repeat([0, 1, 2], [80, 20, 20])
    dataset = Dataset.from_arrays(arrays, split=split, present=present)
    paired = changed(scenario, items="paired")
    found = benchmark(paired, plan(paired, dataset.card), dataset, seed=0).train
    rows = [each.items.shares[0].rows.numpy() for each in found]
    training = np.arange(80)
    assert np.array_equal(rows[0], training[training % 3 == 2])  # video and audio
    assert np.array_equal(rows[1], training[training % 3 == 1])  # video and text
    assert np.array_equal(rows[2], training)  # depth, which all have, and one more
    with pytest.raises(InputError, match="give steps instead of epochs"):
        plan(changed(paired, epochs=1), dataset.card)
