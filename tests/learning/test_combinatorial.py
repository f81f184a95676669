"""The contrast of modalities and of several together, against a computation of its own."""

import math

import numpy as np
import pytest
import torch

from continual_mm.data.batch import Items, Share
from continual_mm.data.dataset import Dataset
from continual_mm.definitions.modality import Pair
from continual_mm.definitions.scenario import SpaceSettings
from continual_mm.learning.growth import GrowingSpace
from continual_mm.learning.objective import Part, combinatorial_contrast
from continual_mm.space.kinds import new_space

NAMES = ("audio", "text", "video")
ALL = {0: tuple(Pair.parse(text) for text in ("audio-text", "audio-video", "text-video"))}
SIX = ("audio-text", "audio-video", "text-video")
SIX += ("audio-text+video", "text-audio+video", "video-audio+text")


def items_of(present, items=6):
    """Items of three modalities, some of which some items lack."""
    rng = np.random.default_rng(0)
    arrays = {"text": rng.random((items, 4, 5)), "audio": rng.random((items, 3, 6))}
    arrays["video"] = rng.random((items, 7))
    dataset = Dataset.from_arrays(
        arrays, split=[0] * items, splits=["training"], standardise=False, present=present
    )
    return dataset, Items(dataset, (Share(0, torch.arange(items), NAMES),))


def batch_of(present):
    dataset, items = items_of(present)
    return dataset, items.block((torch.arange(6),))


def embedded_of(dataset, batch, pairs=ALL, **settings):
    given = {"dim": 8, "token_width": 8, "feature_dropout": 0.0, **settings}
    space = new_space(SpaceSettings(kind="fusion", **given))
    for name in NAMES:
        space.add_modality(dataset.columns[name].modality)
    model = GrowingSpace(space, dict(pairs))
    return space, model(batch)


def side(space, dataset, names, item):
    """The embedding of one item alone, without a batch, from the space's modules."""
    tokens = {}
    for name in names:
        values, lengths = dataset.columns[name].take(torch.tensor([item]))
        tokens[name] = space.tower(name).own.tokens(values, lengths).values[0]
    mixed = space.transformer(
        torch.cat([*tokens.values()])[None],
        torch.ones(1, sum(map(len, tokens.values())), dtype=bool),
    )[0]
    total, start = torch.zeros(8), 0
    for name, own in tokens.items():
        mean = mixed[start : start + len(own)].mean(0)
        start += len(own)
        raw = space.tower(name).own.out(mean)
        total = total + raw / raw.norm()
    return total / total.norm()


def expected(space, dataset, items, first, second):
    """Both directions of the softmax, row by row, over items that have everything."""
    scale = float(space.logit_scale)
    one = [side(space, dataset, first, item) for item in items]
    other = [side(space, dataset, second, item) for item in items]
    total = 0.0
    for i in range(len(items)):
        forth = [math.exp(scale * float(one[i] @ other[j])) for j in range(len(items))]
        back = [math.exp(scale * float(one[j] @ other[i])) for j in range(len(items))]
        total -= math.log(forth[i] / sum(forth)) + math.log(back[i] / sum(back))
    return total / len(items)


def sides(term):
    return [each.split("+") for each in term.split("-")]


@pytest.mark.parametrize("blocks", [0, 1])
def test_it_is_the_weighted_mean_of_all_terms(blocks):
    present = {"text": np.array([True, True, True, True, False, True])}
    dataset, batch = batch_of(present)
    weights = {"audio-video": 0.25, "text-video+audio": 3.0}
    space, embedded = embedded_of(dataset, batch, blocks=blocks, term_weights=weights)
    found = combinatorial_contrast(space, batch, embedded, ALL, Part(0, 6))
    assert tuple(found) == tuple(f"contrast/{term}" for term in SIX)
    given = {"audio-video": 0.25, "text-audio+video": 3.0}
    total = sum(given.get(term, 1.0) for term in SIX)
    for term in SIX:
        items = [0, 1, 2, 3, 5] if "text" in term else range(6)
        value = given.get(term, 1.0) * expected(space, dataset, [*items], *sides(term)) / total
        assert float(found[f"contrast/{term}"].detach()) == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("having", [0, 1])
def test_terms_without_two_rows_are_in_neither_sum(having):
    """The released program divides 0 by 0 there."""
    dataset, items = items_of({"audio": np.arange(7) < having if having else np.arange(7) > 5}, 7)
    batch = items.block((torch.arange(6),))
    space, embedded = embedded_of(dataset, batch)
    found = combinatorial_contrast(space, batch, embedded, ALL, Part(0, 6))
    assert tuple(found) == ("contrast/text-video",)
    value = expected(space, dataset, range(6), ["text"], ["video"])
    assert float(found["contrast/text-video"].detach()) == pytest.approx(value, rel=1e-4)
    found["contrast/text-video"].backward()
    given = [each.grad for each in space.parameters() if each.grad is not None]
    assert all(bool(each.isfinite().all()) for each in given)


def test_without_any_term_there_is_no_loss():
    dataset, batch = batch_of({})
    space, embedded = embedded_of(dataset, batch)
    assert combinatorial_contrast(space, batch, embedded, ALL, Part(0, 1)) == {}
    assert combinatorial_contrast(space, batch, embedded, {0: ()}, Part(0, 6)) == {}


def test_rows_of_a_part_alone_count():
    dataset, batch = batch_of({})
    space, embedded = embedded_of(dataset, batch)
    found = combinatorial_contrast(space, batch, embedded, ALL, Part(2, 5))
    value = expected(space, dataset, range(2, 5), ["text"], ["audio", "video"]) / 6
    assert float(found["contrast/text-audio+video"].detach()) == pytest.approx(value, rel=1e-4)


def test_only_sides_of_terms_of_the_rows_are_embedded_together():
    dataset, batch = batch_of({})
    pairs = {0: ALL[0][:1], 1: ALL[0]}
    _, embedded = embedded_of(dataset, batch, pairs=pairs)
    assert embedded.together == {}
    _, embedded = embedded_of(dataset, batch, larger_side=1)
    assert embedded.together == {}
    _, embedded = embedded_of(dataset, batch)
    assert len(embedded.together) == 3


def test_rows_that_answer_one_another_are_no_negatives():
    """Of two rows with the same sound and pictures each text is answered by either."""
    dataset, batch = batch_of({})
    values = {name: dataset.columns[name].values.copy() for name in NAMES}
    for name in ("audio", "video"):
        values[name][1] = values[name][0]
    same = Dataset.from_arrays(values, split=[0] * 6, splits=["training"], standardise=False)
    items = Items(same, (Share(0, torch.arange(6), NAMES),), marked=True)
    batch = items.block((torch.arange(6),))
    space, embedded = embedded_of(same, batch)
    found = combinatorial_contrast(space, batch, embedded, ALL, Part(0, 6))
    one = torch.stack([side(space, same, ["text"], item) for item in range(6)])
    other = torch.stack([side(space, same, ["audio", "video"], item) for item in range(6)])
    logits = space.logit_scale * one @ other.T
    logits[0, 1] = logits[1, 0] = -math.inf
    value = -(logits.log_softmax(1).diagonal() + logits.log_softmax(0).diagonal()).mean() / 6
    torch.testing.assert_close(found["contrast/text-audio+video"], value, rtol=1e-4, atol=1e-5)
