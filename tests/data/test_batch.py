"""Batches whose rows differ in their modalities and lengths."""

import pytest
import torch
from torch import Tensor

from continual_mm.data.batch import Batch, join


def batch(
    rows: int,
    *,
    vector: list[int] | None = None,
    tokens: dict[int, int] | None = None,
    start: int = 0,
    stage: int = 0,
) -> Batch:
    """Rows ``start``, ...; some with a vector (3,), some with so many tokens (2,).

    Every value of row r is r + 1, and zero behind the end.
    """
    features, lengths, where = {}, {}, {}
    if vector:
        features["vector"] = torch.tensor([[start + r + 1.0] * 3 for r in vector])
        where["vector"] = torch.tensor(vector)
    if tokens:
        longest = max(tokens.values())
        features["tokens"] = torch.stack(
            [_tokens(start + r + 1.0, length, longest) for r, length in tokens.items()]
        )
        lengths["tokens"] = torch.tensor(list(tokens.values()))
        where["tokens"] = torch.tensor(list(tokens))
    index = torch.arange(start, start + rows)
    return Batch(features, lengths, where, index, torch.full((rows,), stage))


def _tokens(value: float, length: int, longest: int) -> Tensor:
    tokens = torch.zeros(longest, 2)
    tokens[:length] = value
    return tokens


def contents(made: Batch) -> list[dict[str, list[float]]]:
    """Each row's valid values by modality, its dataset row and its stage."""
    found: list[dict[str, list[float]]] = [
        {"index": [int(i)], "stage": [int(s)]} for i, s in zip(made.index, made.stage, strict=True)
    ]
    for name, rows in made.rows.items():
        for place, row in enumerate(rows.tolist()):
            values = made.features[name][place]
            if name in made.lengths:
                values = values[: int(made.lengths[name][place])]
            found[row][name] = values.reshape(-1).tolist()
    return found


MIXED = batch(4, vector=[0, 2], tokens={1: 2, 2: 4, 3: 1}, start=10)


def test_a_row_has_the_modalities_that_were_given() -> None:
    assert [set(row) - {"index", "stage"} for row in contents(MIXED)] == [
        {"vector"},
        {"tokens"},
        {"vector", "tokens"},
        {"tokens"},
    ]
    assert MIXED.present("vector").tolist() == [True, False, True, False]
    assert MIXED.present("tokens").tolist() == [False, True, True, True]
    assert MIXED.present("smell").tolist() == [False] * 4


def test_joining_keeps_every_modality_of_every_row() -> None:
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


def test_joining_pads_the_shorter_with_zeros() -> None:
    joined = join([batch(1, tokens={0: 2}, start=0), batch(1, tokens={0: 5}, start=1)])
    assert joined.features["tokens"].shape == (2, 5, 2)
    assert joined.lengths["tokens"].tolist() == [2, 5]
    assert joined.features["tokens"][0, 2:].eq(0).all()


def test_joining_pads_time_only_whatever_axes_follow() -> None:
    def clip(time: int) -> Batch:
        frames = torch.ones(1, time, 3, 4, 5)
        zero = torch.zeros(1, dtype=torch.long)
        return Batch({"v": frames}, {"v": torch.tensor([time])}, {"v": zero}, zero, zero)

    joined = join([clip(2), clip(7)])
    assert joined.features["v"].shape == (2, 7, 3, 4, 5)
    assert joined.features["v"].sum() == (2 + 7) * 3 * 4 * 5


def test_vectors_of_different_sizes_are_an_error_not_padded() -> None:
    zero = torch.zeros(1, dtype=torch.long)
    parts = [Batch({"v": torch.ones(1, n)}, {}, {"v": zero}, zero, zero) for n in (3, 4)]
    with pytest.raises(RuntimeError, match="size"):
        join(parts)


def test_joining_is_associative() -> None:
    a, b, c = (batch(2, vector=[k % 2], tokens={1: k + 1}, start=2 * k) for k in range(3))
    assert contents(join([join([a, b]), c])) == contents(join([a, join([b, c])]))


def test_an_empty_batch_adds_nothing_and_no_batch_is_an_error() -> None:
    assert contents(join([batch(0), MIXED, batch(0)])) == contents(MIXED)
    with pytest.raises(ValueError, match="at least one"):
        join([])


def test_one_batch_joined_is_itself() -> None:
    assert join([MIXED]) is MIXED


@pytest.mark.parametrize(
    "chosen", [[0, 1, 2, 3], [3, 2, 1, 0], [2], [1, 1, 2, 2, 2], [0, 0], [1, 3], []]
)
def test_selecting_gives_those_rows_in_that_order_with_repeats(chosen: list[int]) -> None:
    selected = MIXED.select(torch.tensor(chosen, dtype=torch.long))
    assert contents(selected) == [contents(MIXED)[row] for row in chosen]


def test_a_modality_that_no_selected_row_has_is_not_there() -> None:
    assert MIXED.select(torch.tensor([0])).modalities == ("vector",)
    assert MIXED.select(torch.tensor([1, 3])).modalities == ("tokens",)
    assert len(MIXED.select(torch.tensor([], dtype=torch.long))) == 0


def test_selecting_single_rows_and_joining_them_gives_the_batch_back() -> None:
    rows = [MIXED.select(torch.tensor([row])) for row in range(4)]
    again = join(rows)
    assert contents(again) == contents(MIXED)
    assert torch.equal(again.features["tokens"], MIXED.features["tokens"])


def test_positions_lead_from_rows_to_features() -> None:
    where = MIXED.positions("tokens", torch.tensor([3, 1, 1]))
    assert where.tolist() == [2, 0, 0]
    assert MIXED.features["tokens"][where, 0, 0].tolist() == [14.0, 12.0, 12.0]


def test_moving_to_a_device_moves_features_and_leaves_the_bookkeeping() -> None:
    # The meta device is always there, and nothing can be read back from it.
    moved = MIXED.to("meta")
    assert {t.device.type for t in (*moved.features.values(), *moved.lengths.values())} == {"meta"}
    assert {t.device.type for t in (*moved.rows.values(), moved.index, moved.stage)} == {"cpu"}
    assert moved.rows == MIXED.rows
    assert moved.index is MIXED.index
    assert moved.stage is MIXED.stage


def test_bytes_count_features_and_bookkeeping() -> None:
    features = 4 * (2 * 3 + 3 * 4 * 2)
    bookkeeping = 8 * (3 + 2 + 3 + 4 + 4)
    assert MIXED.nbytes == features + bookkeeping
