"""Gates: held-out items decide what a subspace counts for, and a bad one is left out."""

import pytest
import torch
from torch.nn.functional import normalize

from continual_mm.definitions.modality import pair
from continual_mm.plugins.gates import (
    HeldOut,
    choose_old,
    choose_trained,
    layout,
    mixing_factors,
)

OLD, NEW, OTHER = pair("audio", "video"), pair("text", "video"), pair("audio", "text")


def units(count: int, seed: int, *, near: torch.Tensor | None = None) -> torch.Tensor:
    drawn = torch.randn(count, 16, generator=torch.Generator().manual_seed(seed))
    return normalize(drawn if near is None else near + 0.3 * drawn, dim=1)


def held_out(count: int, *informative: bool, seed: int = 0) -> HeldOut:
    """Weak earlier similarities and a head for each flag, informative or random."""
    base = units(count, seed)
    heads = [
        base @ units(count, 10 + number, near=base if good else None).T
        for number, good in enumerate(informative)
    ]
    earlier = base @ units(count, 5, near=base / 2).T
    return HeldOut(torch.arange(count), earlier, torch.stack(heads))


def test_a_subspace_that_says_nothing_about_an_old_pair_does_not_count_for_it() -> None:
    (choice,) = choose_old({OLD: held_out(200, False, False)}, (1.0, 1.0), whole=False)
    assert choice.weights == (0.0, 0.0)
    blocks = layout(["audio", "video"], ["text"], [NEW, OTHER], (1.0, 1.0), {OLD: 0.0}, {})
    assert not any({"audio", "video"} <= block.factors.keys() for block in blocks)


def test_a_subspace_that_knows_an_old_pair_counts_for_it() -> None:
    (choice,) = choose_old({OLD: held_out(200, True, True)}, (1.0, 1.0), whole=False)
    assert choice.weights[0] > 0
    assert choice.gain > choice.error > 0


@pytest.mark.parametrize("known", [True, False])
def test_an_old_pair_gains_by_a_head_of_its_own_if_that_knows_it(known) -> None:
    held = held_out(200, False, False, known)
    (choice,) = choose_old({OLD: held}, (1.0, 1.0), whole=False, own=[OLD])
    assert (choice.weights[2] > choice.weights[0]) == known
    own = {OLD: choice.weights[2]}
    blocks = layout(["audio", "video"], ["text"], [NEW, OTHER], (1.0, 1.0), {OLD: 0.5}, own)
    met = [block.factors for block in blocks if block.head == 2]
    assert [each["audio"] * each["video"] for each in met] == pytest.approx([own[OLD]] * known)


def test_a_pair_that_has_not_trained_the_third_head_is_not_offered_it() -> None:
    """The head knows both pairs by chance; only one of them has learned it."""
    held = held_out(200, True, True, True)
    learned, other = choose_old({OLD: held, NEW: held}, (1.0, 1.0), whole=False, own=[OLD])
    assert learned.weights[2] > 0
    assert other.weights[0] > 0
    assert other.weights[2] == 0


def test_of_two_heads_the_one_that_says_nothing_is_left_out() -> None:
    choice = choose_trained([NEW], {NEW: held_out(300, True, False)}, (1.0, 1.0))
    assert choice.weights[0] > 4 * choice.weights[1]


@pytest.mark.parametrize("items", [0, 2, 7])
def test_with_few_items_the_default_stays(items) -> None:
    found = {NEW: held_out(items, False, True)} if items else {}
    choice = choose_trained([NEW], found, (1.1, 0.9))
    assert choice.weights == choice.default == (1.1, 0.9)
    assert choice.as_json()["items"] == items


@pytest.mark.parametrize("gate", [0.25, 1.0, 2.0])
def test_in_its_blocks_trained_pairs_have_their_weights_and_old_ones_their_gate(gate) -> None:
    weights = (0.5, 3.0)
    blocks = layout(["audio", "video"], ["text"], [NEW, OTHER], weights, {OLD: gate}, {})
    assert len(blocks) == 2
    for block, weight in zip(blocks, weights, strict=True):
        factors = block.factors
        for trained in (NEW, OTHER):
            product = factors[trained.first] * factors[trained.second]
            assert product == pytest.approx(weight)
        assert factors["audio"] * factors["video"] == pytest.approx(gate * weight)


def test_a_head_without_weight_takes_no_coordinates() -> None:
    (block,) = layout(["video"], ["text"], [NEW], (0.0, 2.0), {}, {})
    assert block.head == 1


def test_pairs_that_must_not_meet_have_blocks_of_their_own() -> None:
    blocks = layout(["audio", "video"], ["text"], [NEW, OTHER], (1.0,), {OLD: 0.0}, {})
    assert sorted(sorted(block.factors) for block in blocks) == [
        ["audio", "text"],
        ["text", "video"],
    ]


def test_mixing_factors_bring_all_pairs_to_one_scale() -> None:
    vectors = {
        name: scale * units(300, seed)
        for seed, (name, scale) in enumerate((("audio", 0.2), ("text", 3.0), ("video", 1.0)))
    }
    factors = mixing_factors(vectors, [OLD, NEW, OTHER])
    for each in (OLD, NEW, OTHER):
        first, second = (factors[name] * vectors[name] for name in (each.first, each.second))
        # One in two hundred is above one.
        assert (first @ second.T > 1).float().mean() == pytest.approx(0.005, rel=0.1)
    two = mixing_factors(vectors, [OLD, NEW])
    assert two["audio"] * two["video"] == pytest.approx(factors["audio"] * factors["video"])
    assert mixing_factors({"audio": units(3, 0), "video": -units(3, 0)}, []) == {}
    opposite = {"audio": torch.eye(2), "video": -torch.eye(2) - 1}
    assert mixing_factors(opposite, [OLD]) == {}


def test_old_pairs_that_gain_do_so_with_one_weight_and_the_others_not_at_all() -> None:
    found = {
        OLD: held_out(200, True, True),
        NEW: held_out(200, False, False, seed=1),
        OTHER: held_out(200, True, True, seed=2),
    }
    # A head that says much about one pair and little about the other.
    found[OTHER] = HeldOut(found[OTHER].rows, 6 * found[OTHER].earlier, found[OTHER].heads)
    first, none, second = choose_old(found, (1.0, 1.0), whole=False)
    assert first.weights == second.weights != (0.0, 0.0)
    assert none.weights == (0.0, 0.0)


def test_an_item_of_two_pairs_counts_once() -> None:
    one = held_out(7, False, True)
    choice = choose_trained([NEW, OTHER], {NEW: one, OTHER: one}, (1.0, 1.0))
    assert choice.items == 7
    assert choice.weights == choice.default
    many = held_out(100, True, True)
    alone, twice = (
        choose_trained([NEW], dict.fromkeys(pairs, many), (0.1, 0.1))
        for pairs in ([NEW], [NEW, OTHER])
    )
    assert (alone.gain, alone.error) == pytest.approx((twice.gain, twice.error))
