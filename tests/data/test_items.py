"""Items of a dataset as PyTorch sees them."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from continual_mm.data.batch import Batch, Items, Share, join
from continual_mm.data.dataset import Dataset

N = 12
LENGTHS = np.array([1, 5, 2, 3, 1, 4, 2, 2, 5, 1, 3, 2])
HEARD = np.array([1, 1, 0, 1, 0, 1, 1, 1, 1, 0, 1, 1], dtype=bool)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    rng = np.random.default_rng(0)
    return Dataset.from_arrays(
        {
            "touch": rng.normal(size=(N, 3)),
            "speech": rng.normal(size=(N, 5, 2)),
            "sight": rng.normal(size=(N, 4, 2, 2)),
        },
        lengths={"speech": LENGTHS},
        present={"speech": HEARD},
    )


def same(first: Batch, second: Batch) -> bool:
    kinds = ("features", "lengths", "rows")
    return (
        torch.equal(first.index, second.index)
        and torch.equal(first.stage, second.stage)
        and all(
            getattr(first, kind).keys() == getattr(second, kind).keys()
            and all(
                torch.equal(value, getattr(second, kind)[name])
                for name, value in getattr(first, kind).items()
            )
            for kind in kinds
        )
    )


SHARES = (
    Share(0, torch.tensor([0, 2, 5, 9]), ("touch", "speech")),
    Share(1, torch.tensor([1, 3, 4, 10, 11]), ("speech", "sight")),
    Share(2, torch.tensor([6]), ("sight",)),
)


def test_there_are_as_many_items_as_the_shares_have_rows(dataset: Dataset) -> None:
    assert len(Items(dataset, SHARES)) == 10


def test_a_block_equals_its_single_rows_joined(dataset: Dataset) -> None:
    items = Items(dataset, SHARES)
    block = items.block((torch.tensor([3, 0, 1]), torch.tensor([4, 2, 1, 0]), torch.tensor([0])))
    assert same(block, join([items[k] for k in (3, 0, 1, 8, 6, 5, 4, 9)]))


def test_a_stage_shows_only_its_modalities(dataset: Dataset) -> None:
    items = Items(dataset, SHARES)
    seen = {name for k in range(4) for name in items[k].modalities}
    assert seen == {"touch", "speech"}
    assert {name for k in range(4, 9) for name in items[k].modalities} == {"speech", "sight"}
    assert items[9].modalities == ("sight",)
    assert [int(items[k].stage) for k in range(10)] == [0] * 4 + [1] * 5 + [2]


def test_an_item_without_a_modality_does_not_show_it(dataset: Dataset) -> None:
    items = Items(dataset, SHARES)
    for k in range(len(items)):
        row, stage = int(items[k].index), int(items[k].stage)
        heard = bool(HEARD[row]) and "speech" in SHARES[stage].modalities
        assert ("speech" in items[k].modalities) == heard
    block = items.block((torch.arange(4), torch.empty(0, dtype=torch.long), torch.arange(0)))
    assert block.present("speech").tolist() == [bool(HEARD[row]) for row in (0, 2, 5, 9)]
    assert block.index.tolist() == [0, 2, 5, 9]


def test_values_are_those_of_the_dataset_up_to_the_longest(dataset: Dataset) -> None:
    rows = torch.tensor([7, 0, 3])
    block = Items(dataset, (Share(0, rows, ("speech", "touch")),)).block((torch.arange(3),))
    speech = dataset.columns["speech"].values
    assert block.features["speech"].shape == (3, 3, 2)
    assert np.array_equal(block.features["speech"].numpy(), speech[[7, 0, 3], :3])
    assert block.lengths["speech"].tolist() == [2, 1, 3]
    assert np.array_equal(
        block.features["touch"].numpy(), dataset.columns["touch"].values[[7, 0, 3]]
    )


def test_a_block_of_nothing_is_an_empty_batch(dataset: Dataset) -> None:
    nothing = torch.empty(0, dtype=torch.long)
    block = Items(dataset, SHARES).block((nothing, nothing, nothing))
    assert len(block) == 0
    assert block.modalities == ()


def test_changing_a_block_does_not_change_the_dataset(dataset: Dataset) -> None:
    items = Items(dataset, (Share(0, torch.arange(N), ("touch", "speech")),))
    before = items.block((torch.arange(N),))
    changed = items.block((torch.arange(N),))
    for value in changed.features.values():
        value.zero_()
    assert same(items.block((torch.arange(N),)), before)


@pytest.mark.parametrize("position", [-1, 10, 11])
def test_there_is_no_item_beyond_the_last(dataset: Dataset, position: int) -> None:
    with pytest.raises(IndexError, match=f"item {position} of 10"):
        Items(dataset, SHARES)[position]


def test_any_loader_may_read_them(dataset: Dataset) -> None:
    items = Items(dataset, SHARES)
    batches = list(DataLoader(items, batch_size=4, collate_fn=join))
    assert same(join(batches), join([items[k] for k in range(10)]))
