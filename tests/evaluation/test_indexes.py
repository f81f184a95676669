"""Indexes: one for all modalities, and one that was filled before a stage."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.modality import pair
from continual_mm.evaluation.indexes import Indexes, IndexScore, mixed_ranks
from continual_mm.evaluation.pairs import Evaluation, Gallery
from continual_mm.evaluation.relevance import Relevance

NAMES = ("audio", "text", "video")


def vectors(count: int, seed: int, size: int = 4) -> torch.Tensor:
    drawn = torch.randn(count, size, generator=torch.Generator().manual_seed(seed))
    return normalize(drawn, dim=1)


def gallery(rows=None, **more) -> Gallery:
    rows = rows or {name: torch.arange(12) for name in NAMES}
    found = {name: vectors(len(rows[name]), seed) for seed, name in enumerate(rows)}
    return Gallery(found, rows, **more)


def evaluation(stage: int, *, final: bool = True, split: str = "test") -> Evaluation:
    return Evaluation(stage, 10 * stage, final, split, ())


def each_alone() -> Relevance:
    return Relevance()


def of_classes(label) -> Relevance:
    features = {name: np.arange(float(len(label)))[:, None] for name in NAMES}
    split = [0, 1, 2] + [2] * (len(label) - 3)
    items = Dataset.from_arrays(features, label=label, split=split, standardise=False)
    return Relevance(items, positives="label")


def watched(**options) -> tuple[Indexes, list[IndexScore]]:
    scores: list[IndexScore] = []
    return Indexes(scores.append, each_alone(), **options), scores


def test_a_mixed_index_is_searched_as_one_list_of_all_other_modalities() -> None:
    rows = {"audio": torch.arange(12), "text": torch.arange(3, 12), "video": torch.arange(10)}
    factors = {"audio": 0.5, "text": 2.0}
    here = gallery(rows, factors=factors)
    found = mixed_ranks(here, "video", each_alone())
    expected = []
    for place, row in enumerate(range(10)):
        listed = [
            (float(here.embeddings["video"][place] @ each) * factors[name], name, int(of))
            for name in ("audio", "text")
            for each, of in zip(here.embeddings[name], rows[name], strict=True)
        ]
        listed.sort(reverse=True)
        places = [rank for rank, (_, _, of) in enumerate(listed) if of == row]
        if row >= 3:  # below, there is no text
            expected.append(max(places))
    assert found.tolist() == expected


def test_in_a_mixed_index_any_item_of_the_querys_group_is_an_answer() -> None:
    by_two = of_classes(np.arange(12) // 2)
    alone, together = (mixed_ranks(gallery(), "video", by) for by in (each_alone(), by_two))
    assert (together <= alone).all()
    assert (together < alone).any()


def test_in_a_mixed_index_items_of_the_class_are_right_even_if_their_rows_lack_the_query() -> None:
    # Rows 0 and 2 are of one class, row 1 of another; row 2 has no video.
    rows = {"video": torch.tensor([0, 1]), "audio": torch.arange(3), "text": torch.arange(3)}
    side, up = [1.0, 0.0], [0.0, 1.0]
    here = Gallery(
        {
            "video": torch.tensor([side, up]),
            "audio": torch.tensor([[0.0, -1.0], up, [0.9, 0.0]]),
            "text": torch.tensor([[0.5, 0.0], [0.0, 0.7], [0.8, 0.0]]),
        },
        rows,
    )
    label = np.array([4, 5, 4])
    found = mixed_ranks(here, "video", of_classes(label))
    # In front are sound and caption of row 2 for the first query, and its own for the second.
    assert found.tolist() == [1, 1]
    # Without classes row 0's sound stands behind 0.9, 0.8 and 0.5, and level with two more.
    assert mixed_ranks(here, "video", each_alone()).tolist() == [4, 1]


def test_with_two_modalities_there_is_no_mixed_index() -> None:
    indexes, scores = watched()
    indexes(evaluation(0), gallery({name: torch.arange(5) for name in ("audio", "video")}))
    assert scores == []


def test_an_earlier_index_has_the_vectors_that_were_there_and_their_coordinates() -> None:
    indexes, scores = watched()
    before = gallery({name: torch.arange(12) for name in ("audio", "video")})
    indexes(evaluation(0), before)
    now = gallery()
    grown = {
        name: torch.cat([each, vectors(12, 9)], dim=1) for name, each in now.embeddings.items()
    }
    indexes(evaluation(1), Gallery(grown, now.rows))
    earlier = {(one.query, *one.gallery): one for one in scores if one.kind == "earlier"}
    assert earlier.keys() == {
        (query, answer) for query, answer in product(NAMES, ("audio", "video")) if query != answer
    }
    similarity = now.embeddings["text"] @ before.embeddings["video"].T
    right = (similarity.argmax(1) == torch.arange(12)).float().mean()
    assert earlier["text", "video"].measures["recall@1"] == pytest.approx(float(right))


def test_pairs_with_towers_of_their_own_are_searched_with_these() -> None:
    own = {pair("audio", "video"): {"video": vectors(12, 7)}}
    here = gallery(own=own)
    found = mixed_ranks(here, "video", each_alone())
    assert not torch.equal(found, mixed_ranks(gallery(), "video", each_alone()))
    indexes, scores = watched()
    indexes(evaluation(0), here)
    indexes(evaluation(1), here)
    of_own = next(
        s for s in scores if s.kind == "earlier" and s.query == "audio" and "video" in s.gallery
    )
    similarity = here.embeddings["audio"] @ own[pair("audio", "video")]["video"].T
    right = (similarity.argmax(1) == torch.arange(12)).float().mean()
    assert of_own.measures["recall@1"] == pytest.approx(float(right))


@pytest.mark.parametrize("options", [{"final": False}, {"split": "validation"}])
def test_only_test_items_at_a_stages_end_are_scored_and_kept(options) -> None:
    indexes, scores = watched()
    indexes(evaluation(0, **options), gallery())
    assert scores == []
    assert indexes.state() == {}


def test_few_items_are_kept_and_restored() -> None:
    own = {pair("audio", "video"): {"video": vectors(12, 7)}}
    first, scores = watched(items=5)
    first(evaluation(0), gallery(own=own))
    state = {key: value.clone() for key, value in first.state().items()}
    assert state["rows/video"].tolist() == [0, 2, 4, 7, 9]
    second, again = watched(items=5)
    second.load_state(state)
    scores.clear()
    for each in (first, second):
        each(evaluation(1), gallery(own=own))
    assert scores == again
    assert all(one.queries == 5 for one in again if one.kind == "earlier")


def test_a_score_is_read_as_it_was_written() -> None:
    score = IndexScore(2, 40, "mixed", "video", ("audio", "text"), 12, {"recall@10": math.pi / 4})
    assert IndexScore.from_json(score.as_json()) == score


def test_a_mixed_index_is_searched_in_blocks_to_the_same_ranks(monkeypatch) -> None:
    here = gallery(
        {"audio": torch.arange(12), "text": torch.arange(3, 12), "video": torch.arange(10)}
    )
    whole = mixed_ranks(here, "video", each_alone())
    monkeypatch.setattr("continual_mm.evaluation.indexes._ELEMENTS_AT_ONCE", 50)
    assert torch.equal(mixed_ranks(here, "video", each_alone()), whole)
