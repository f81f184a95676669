"""Several modalities together, and items of other datasets."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from continual_mm.data.dataset import Dataset, Split
from continual_mm.definitions.modality import pair
from continual_mm.evaluation.composite import embed, similarity
from continual_mm.evaluation.pairs import Gallery
from continual_mm.learning.growth import Together
from continual_mm.learning.guard import NotFiniteError

NAMES = ("audio", "depth", "text", "video")


def gallery(*, own):
    """Items 3 to 8 have everything; items 1 and 9 have all but text."""
    rng = torch.Generator().manual_seed(0)
    rows = {name: torch.tensor([1, 3, 4, 5, 6, 7, 8, 9]) for name in NAMES}
    rows["text"] = torch.arange(3, 9)
    embeddings = {name: torch.randn(len(rows[name]), 5, generator=rng) for name in NAMES}
    towers = {name: torch.randn(len(rows[name]), 5, generator=rng) for name in ("text", "audio")}
    return Gallery(embeddings, rows, {pair("text", "audio"): towers} if own else {})


@pytest.mark.parametrize("own", [False, True])
def test_similarities_of_all_pairs_are_added(own):
    seen = gallery(own=own)
    queries, items = torch.tensor([4, 7]), torch.tensor([1, 5, 9])
    found = similarity(seen, ("text", "depth"), ("video", "audio"), queries, items)
    expected = torch.zeros(2, 3)
    for i, query in enumerate(queries):
        for j, item in enumerate(items):
            for asks in ("text", "depth"):
                for answers in ("video", "audio"):
                    view = seen.of_pair(pair(asks, answers))
                    left = view[asks][seen.rows[asks] == query]
                    right = view[answers][seen.rows[answers] == item]
                    expected[i, j] += (left * right).sum()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("size", [64, 6144])
def test_equal_embeddings_are_equally_similar_however_many_are_compared(size, own):
    """BLAS adds in another order for another shape; ties would depend on a video's length."""
    rng = torch.Generator().manual_seed(size)
    once = {name: torch.randn(1, size, generator=rng) for name in ("text", "video", "audio")}
    alike = {name: each.expand(150, -1) for name, each in once.items()}
    towers = {pair("text", "audio"): {"text": alike["video"], "audio": alike["text"]}}
    seen = Gallery(alike, dict.fromkeys(alike, torch.arange(150)), towers if own else {})
    found = set()
    for steps, seconds in product((1, 2, 3, 5, 8, 11), (1, 2, 3, 5, 8, 21, 50, 149)):
        rows = torch.arange(steps), torch.arange(seconds)
        found |= {*similarity(seen, ("text",), ("video", "audio"), *rows).flatten().tolist()}
    assert len(found) == 1


def test_items_of_another_dataset_are_embedded_as_the_space_encodes_them(trained):
    learner = trained()
    rng = np.random.default_rng(2)
    present = np.array([True, False, True, True])
    other = Dataset.from_arrays(
        {"video": rng.random((4, 8)), "text": rng.random((4, 5))},
        split=[2] * 4, splits=["test"], standardise=False, present={"text": present},
    )  # fmt: skip
    learner.space.train()
    modes = [module.training for module in learner.model.modules()]
    rows = torch.from_numpy(other.rows_of(Split.TEST))
    seen = embed(learner, other, rows, ("video", "text"))
    assert [module.training for module in learner.model.modules()] == modes
    assert seen.rows["text"].tolist() == [0, 2, 3]
    for name, found in seen.embeddings.items():
        values = other.columns[name].values[other.columns[name].present]
        torch.testing.assert_close(found, learner.space.encode(name, values))
        assert not found.requires_grad


def test_an_embedding_that_is_not_finite_is_told_with_its_dataset(trained):
    learner = trained()
    with torch.no_grad():
        next(learner.space.tower("video").parameters()).fill_(torch.nan)
    other = Dataset.from_arrays({"video": np.ones((2, 8))}, split=[2, 2], splits=["test"],
                                standardise=False, name="strange")  # fmt: skip
    with pytest.raises(NotFiniteError, match="an embedding of the 'strange' test items"):
        embed(learner, other, torch.arange(2), ("video",))


@pytest.mark.parametrize("own", [False, True])
def test_the_mean_is_over_what_the_items_have(own):
    seen = gallery(own=own)
    # Items 1 and 9 have no text.
    queries, items = torch.tensor([4, 7]), torch.tensor([1, 5, 9])
    found = similarity(seen, ("video", "depth"), ("audio", "text"), queries, items, mean=True)
    expected = torch.zeros(2, 3)
    for i, query in enumerate(queries):
        for j, item in enumerate(items):
            has = ("audio",) if int(item) in (1, 9) else ("audio", "text")
            sums = [
                float(
                    seen.embeddings[asks][seen.rows[asks] == query][0]
                    @ seen.embeddings[answers][seen.rows[answers] == item][0]
                )
                for asks in ("video", "depth")
                for answers in has
            ]
            expected[i, j] = sum(sums) / len(sums)
    torch.testing.assert_close(found, expected)


def test_what_the_space_fused_is_compared_in_the_place_of_a_sum():
    seen = gallery(own=True)
    vectors = torch.randn(7, 5)
    fused = Together(torch.tensor([1, 3, 4, 5, 6, 7, 9]), vectors)
    seen = replace(seen, together={("text", "audio"): fused})
    queries, items = torch.tensor([4, 7]), torch.tensor([3, 9])
    found = similarity(seen, ("depth",), ("text", "audio"), queries, items)
    places = [seen.rows["depth"].tolist().index(row) for row in (4, 7)]
    expected = seen.embeddings["depth"][places] @ vectors[[1, 6]].T
    torch.testing.assert_close(found, expected)
