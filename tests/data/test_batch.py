"""Batches whose rows differ in modalities and lengths, and the items that they are made of."""

import numpy as np
import pytest
import torch

from continual_mm.data.batch import Batch, Items, Share, join
from continual_mm.data.dataset import Dataset


def batch(rows, *, vector=None, tokens=None, start=0, stage=0):
    """Rows ``start``, ...; some with a vector (3,), some with so many tokens (2,).

    Every value of row r is r + 1, and zero behind the end.
    """
    features, lengths, where = {}, {}, {}
    if vector:
        features["vector"] = torch.tensor([[start + r + 1.0] * 3 for r in vector])
        where["vector"] = torch.tensor(vector)
    if tokens:
        where["tokens"], lengths["tokens"] = torch.tensor(list(tokens.items())).T
        here = torch.arange(max(tokens.values())) < lengths["tokens"][:, None]
        values = here * (start + where["tokens"][:, None] + 1.0)
        features["tokens"] = values[:, :, None].expand(-1, -1, 2)
    index = torch.arange(start, start + rows)
    return Batch(features, lengths, where, index, torch.full((rows,), stage))


def contents(made):
    """Each row's valid values by modality, its dataset row and its stage."""
    both = zip(made.index, made.stage, strict=True)
    found = [{"index": [int(index)], "stage": [int(stage)]} for index, stage in both]
    for name, rows in made.rows.items():
        for place, row in enumerate(rows.tolist()):
            values = made.features[name][place]
            if name in made.lengths:
                values = values[: int(made.lengths[name][place])]
            found[row][name] = values.reshape(-1).tolist()
    return found


MIXED = batch(4, vector=[0, 2], tokens={1: 2, 2: 4, 3: 1}, start=10)


def test_a_row_has_the_modalities_that_were_given():
    given = [{"vector"}, {"tokens"}, {"vector", "tokens"}, {"tokens"}]
    assert [set(row) - {"index", "stage"} for row in contents(MIXED)] == given
    assert MIXED.present("vector").tolist() == [True, False, True, False]
    assert MIXED.present("tokens").tolist() == [False, True, True, True]
    assert MIXED.present("smell").tolist() == [False] * 4


def test_joining_keeps_every_modality_of_every_row():
    parts = [
        batch(2, vector=[1], start=0, stage=0),
        batch(3, tokens={0: 1, 2: 3}, start=2, stage=1),
        batch(1, start=5, stage=2),
        batch(2, vector=[0], tokens={0: 5, 1: 2}, start=6, stage=3),
    ]
    joined = join(parts)
    assert len(joined) == 8
    assert joined.modalities == ("vector", "tokens")
    assert contents(joined) == [row for part in parts for row in contents(part)]
    for name in joined.modalities:
        assert torch.equal(joined.rows[name], joined.rows[name].unique())


def test_an_empty_batch_adds_nothing_and_no_batch_is_an_error():
    assert join([MIXED]) is MIXED
    assert contents(join([batch(0), MIXED, batch(0)])) == contents(MIXED)
    with pytest.raises(ValueError, match="at least one"):
        join([])


@pytest.mark.parametrize(
    "chosen", [[0, 1, 2, 3], [3, 2, 1, 0], [2], [1, 1, 2, 2, 2], [0, 0], [1, 3], []]
)
def test_selecting_gives_those_rows_in_that_order_with_repeats(chosen):
    selected = MIXED.select(torch.tensor(chosen, dtype=torch.long))
    expected = [contents(MIXED)[row] for row in chosen]
    assert contents(selected) == expected
    assert set(selected.modalities) == {"vector", "tokens"} & {
        key for row in expected for key in row
    }


def test_moving_to_a_device_moves_features_and_leaves_the_bookkeeping():
    # The meta device is always there, and nothing can be read back from it.
    moved = MIXED.to("meta")
    assert {t.device.type for t in (*moved.features.values(), *moved.lengths.values())} == {"meta"}
    assert {t.device.type for t in (*moved.rows.values(), moved.index, moved.stage)} == {"cpu"}
    assert moved.rows == MIXED.rows
    assert moved.index is MIXED.index
    assert moved.stage is MIXED.stage


N = 12
LENGTHS = np.array([1, 5, 2, 3, 1, 4, 2, 2, 5, 1, 3, 2])
HAS_SPEECH = np.array([1, 1, 0, 1, 0, 1, 1, 1, 1, 0, 1, 1], dtype=bool)


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    shapes = {"touch": (3,), "speech": (5, 2), "sight": (4, 2, 2)}
    arrays = {name: rng.normal(size=(N, *shape)) for name, shape in shapes.items()}
    return Dataset.from_arrays(arrays, lengths={"speech": LENGTHS}, present={"speech": HAS_SPEECH})


SHARES = (
    Share(0, torch.tensor([0, 2, 5, 9]), ("touch", "speech")),
    Share(1, torch.tensor([1, 3, 4, 10, 11]), ("speech", "sight")),
    Share(2, torch.tensor([6]), ("sight",)),
)


def test_a_block_equals_its_single_rows_joined(dataset):
    items = Items(dataset, SHARES)
    assert len(items) == 10
    block = items.block((torch.tensor([3, 0, 1]), torch.tensor([4, 2, 1, 0]), torch.tensor([0])))
    assert contents(block) == contents(join([items[k] for k in (3, 0, 1, 8, 6, 5, 4, 9)]))


def test_an_item_shows_the_modalities_of_its_stage_that_it_has(dataset):
    items = Items(dataset, SHARES)
    stages = [int(item.stage) for item in (items[k] for k in range(10))]
    assert stages == [0] * 4 + [1] * 5 + [2]
    for item in (items[k] for k in range(10)):
        lacks = () if HAS_SPEECH[item.index] else ("speech",)
        expected = [name for name in SHARES[item.stage].modalities if name not in lacks]
        assert list(item.modalities) == expected
    block = items.block((torch.arange(4), torch.empty(0, dtype=torch.long), torch.arange(0)))
    assert block.present("speech").tolist() == [bool(HAS_SPEECH[row]) for row in (0, 2, 5, 9)]
    assert block.index.tolist() == [0, 2, 5, 9]


def test_values_are_those_of_the_dataset_up_to_the_longest(dataset):
    rows = torch.tensor([7, 0, 3])
    block = Items(dataset, (Share(0, rows, ("speech", "touch")),)).block((torch.arange(3),))
    speech, touch = (dataset.columns[name].values[rows] for name in ("speech", "touch"))
    assert np.array_equal(block.features["speech"].numpy(), speech[:, :3])
    assert np.array_equal(block.features["touch"].numpy(), touch)
    assert block.lengths["speech"].tolist() == [2, 1, 3]
