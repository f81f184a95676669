import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from continual_mm.metrics.ranking import Question, counted, same
from continual_mm.metrics.retrieval import (
    best_clips,
    first_answers,
    mean_over_captions,
    mean_reciprocal_rank,
    median_rank,
    ranks,
    recall_at,
    voted_among,
    votes,
)

VIDEO = torch.tensor([0, 2, 1, 0, 2, 2, 1, 0, 3])
SIMILARITY = torch.randn(9, 9, generator=torch.Generator().manual_seed(2))


def ranks_by_sorting(similarity):
    order = np.argsort(-similarity, axis=1)
    return np.array([float(np.flatnonzero(row == i)[0]) for i, row in enumerate(order)])


def ranks_by_definition(similarity, positives, ties):
    found = []
    for query, row in enumerate(similarity):
        correct = {query, *np.flatnonzero(positives[query])}
        best = max(row[answer] for answer in correct)
        wrong = [row[answer] for answer in range(len(row)) if answer not in correct]
        share = {"optimistic": 0.0, "mean": 0.5, "pessimistic": 1.0}[ties]
        found.append(sum(x > best for x in wrong) + share * sum(x == best for x in wrong))
    return found


def published_recall(similarity, k):
    """MCN's metric: every column as similar as the partner counts as a found partner."""
    places = np.where(np.sort(-similarity, axis=1) == -np.diag(similarity)[:, None])[1]
    return float((places < k).sum() / len(similarity))


def test_without_ties_it_is_the_place_in_the_sorted_row():
    similarity = np.random.default_rng(0).normal(size=(1500, 1500))
    for ties in ("optimistic", "mean", "pessimistic"):
        np.testing.assert_array_equal(ranks(similarity, ties=ties), ranks_by_sorting(similarity))


@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 9999), st.booleans())
@settings(max_examples=80, deadline=None)
def test_ties_and_further_positives_follow_the_definition(count, levels, seed, diagonal):
    generator = np.random.default_rng(seed)
    similarity = generator.integers(levels, size=(count, count)).astype(np.float32)
    positives = generator.random((count, count)) < 0.3
    np.fill_diagonal(positives, diagonal)
    for ties in ("optimistic", "mean", "pessimistic"):
        expected = ranks_by_definition(similarity, positives, ties)
        assert ranks(similarity, ties=ties, positives=positives).tolist() == expected
        nothing = np.zeros_like(positives)
        assert ranks(similarity, ties=ties).tolist() == ranks_by_definition(
            similarity, nothing, ties
        )


def test_positives_are_not_counted_against_each_other_across_blocks():
    count = 1400
    label = np.arange(count) % 50
    similarity = np.random.default_rng(0).normal(size=(count, count))
    positives = label[:, None] == label
    best = np.where(positives, similarity, -np.inf).max(1, keepdims=True)
    expected = ((similarity > best) & ~positives).sum(1)
    np.testing.assert_array_equal(ranks(similarity, positives=positives), expected)


def test_a_collapsed_model_is_at_chance_where_the_published_metric_exceeds_one():
    collapsed = np.ones((100, 100))
    assert published_recall(collapsed, 10) == 10
    assert recall_at(ranks(collapsed), 10) == 0
    assert median_rank(ranks(collapsed)) == 50.5
    assert recall_at(ranks(collapsed, ties="optimistic"), 1) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_give_tensors_and_arrays_give_arrays(dtype):
    similarity = torch.randn(60, 60, generator=torch.Generator().manual_seed(0)).to(dtype)
    from_tensor = ranks(similarity.requires_grad_())
    from_array = ranks(similarity.detach().double().numpy())
    assert from_tensor.dtype == torch.float32
    assert isinstance(from_array, np.ndarray)
    assert from_array.dtype == np.float64
    assert from_tensor.tolist() == from_array.tolist()
    positives = torch.eye(60, dtype=torch.bool).roll(1, 0)
    assert ranks(similarity, positives=positives.numpy()).tolist() == (
        ranks(similarity.detach().double().numpy(), positives=positives).tolist()
    )


def test_a_reversed_and_a_read_only_view_are_ranked_as_they_look():
    similarity = np.random.default_rng(0).normal(size=(9, 9))
    expected = ranks(similarity[::-1, ::-1].copy())
    similarity.flags.writeable = False
    assert ranks(similarity[::-1, ::-1]).tolist() == expected.tolist()
    assert ranks(similarity).tolist() == expected[::-1].tolist()


def test_minus_infinity_is_the_last_place():
    similarity = np.zeros((3, 3))
    similarity[1, 1] = -math.inf
    assert ranks(similarity).tolist() == [1, 2, 1]


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operator made, other than views of one."""

    def __init__(self, given):
        super().__init__()
        self.elements, self.given = 0, given.untyped_storage().data_ptr()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and (result.untyped_storage().data_ptr() != self.given):
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize("as_tensor", [True, False])
def test_no_temporary_is_a_second_matrix(as_tensor):
    similarity = np.random.default_rng(0).random((4000, 4000), dtype=np.float32)
    positives = np.zeros((4000, 4000), dtype=bool)
    matrix = torch.from_numpy(similarity) if as_tensor else similarity
    with Largest(torch.as_tensor(matrix)) as largest:
        ranks(matrix, positives=positives)
    tracemalloc.start()
    ranks(matrix, positives=positives)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0 < largest.elements < similarity.size / 4
    assert peak < similarity.nbytes / 4


@pytest.mark.parametrize("row", [0, 1200])
def test_nan_is_refused_naming_the_row(row):
    similarity = np.zeros((1300, 1300), dtype=np.float32)
    similarity[row, 7] = math.nan
    for given_similarity in (similarity, torch.from_numpy(similarity)):
        with pytest.raises(ValueError, match=f"row {row}: NaN"):
            ranks(given_similarity)


def test_other_shapes_and_words_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        ranks(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"'average'.*optimistic"):
        ranks(np.zeros((2, 2)), ties="average")
    with pytest.raises(ValueError, match=r"\(3, 3\)"):
        ranks(np.zeros((2, 2)), positives=np.zeros((3, 3), dtype=bool))
    with pytest.raises(ValueError, match="float64"):
        ranks(np.zeros((2, 2)), positives=np.zeros((2, 2)))


def test_summaries_refuse_what_has_no_answer():
    for summary in (median_rank, mean_reciprocal_rank):
        with pytest.raises(ValueError, match="no ranks"):
            summary([])
    with pytest.raises(ValueError, match="recall at 0"):
        recall_at([1.0], 0)


@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_the_published_evaluation_lists_every_place_of_the_partners_similarity(items, levels, seed):
    similarity = np.random.default_rng(seed).integers(0, levels, (items, items)).astype(np.float32)
    ordered = np.sort(-similarity, axis=1)
    expected = np.where(ordered - np.diag(-similarity)[:, None] == 0)[1]
    matrix, each = torch.from_numpy(similarity), torch.arange(items)
    (found,) = counted(lambda *at: matrix[at], matrix.shape, [Question(same(each, each))])
    assert found.listed().tolist() == expected.tolist()


def naive_best():
    return np.array(
        [[max(row[c] for c in range(9) if VIDEO[c] == v) for v in range(4)] for row in SIMILARITY]
    )


def test_a_video_is_as_similar_as_its_most_similar_clip():
    np.testing.assert_array_equal(best_clips(SIMILARITY, VIDEO, 4), naive_best())


def test_a_caption_finds_its_video_where_one_of_its_clips_is_among_the_first():
    found = ranks(SIMILARITY, positives=VIDEO[:, None] == VIDEO[None, :])
    for caption, row in enumerate(SIMILARITY.numpy()):
        for k in (1, 2, 5):
            first = np.argsort(-row)[:k]
            assert (found[caption] < k) == (VIDEO[caption] in VIDEO[first])


def test_all_captions_of_a_video_are_averaged():
    expected = [[naive_best()[v == VIDEO, w].mean() for w in range(4)] for v in range(4)]
    found = mean_over_captions(best_clips(SIMILARITY, VIDEO, 4), VIDEO)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_mean_of_equals_is_the_same_for_one_caption_and_for_many():
    video = torch.arange(16).repeat_interleave(torch.arange(1, 17))
    alike = torch.rand(16, 1, generator=torch.Generator().manual_seed(3))
    found = mean_over_captions(alike[video].expand(-1, 16), video)
    assert torch.equal(found, alike.double().expand(-1, 16))
    assert ranks(found).tolist() == [7.5] * 16


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_without_equal_counts_the_votes_are_those_of_the_published_count(k):
    """The published script counts votes for videos and takes the k that have most."""
    generator = torch.Generator().manual_seed(k)
    checked = 0
    for _ in range(20):
        similarity = torch.randn(9, 9, generator=generator)
        answers = VIDEO[first_answers(similarity, k)]
        found = voted_among(votes(answers, VIDEO, 4), k)
        for video in range(4):
            voted = answers[video == VIDEO].flatten().numpy()
            names, counts = np.unique(voted, return_counts=True)
            if len(np.unique(counts)) == len(counts):
                checked += 1
                assert found[video] == float(video in names[np.argsort(counts)[-k:]])
    assert checked > 10


def test_equal_counts_are_as_good_as_a_draw_and_no_vote_is_no_answer():
    counts = torch.tensor([[2, 2, 2, 1], [3, 1, 1, 1], [4, 4, 0, 0], [0, 1, 2, 3]])
    third = 1 / 3
    for k, expected in {
        1: [third, 0, 0, 1],
        2: [2 * third, third, 0, 1],
        3: [1, 2 * third, 0, 1],
        9: [1, 1, 0, 1],
    }.items():
        assert voted_among(counts, k).tolist() == pytest.approx(expected)


def test_a_clip_may_vote_for_its_video_more_than_once():
    similarity = torch.tensor([[0.9, 0.8, 0.1], [0.2, 0.3, 0.9], [0.3, 0.2, 0.9]])
    video = torch.tensor([0, 0, 1])
    answers = video[first_answers(similarity, 2)]
    assert votes(answers, video, 2).tolist() == [[3, 1], [1, 1]]


def test_summaries_by_hand():
    found = torch.tensor([0, 0.5, 1, 4, 5, 9.5, 10, 99])
    assert [recall_at(found, k) for k in (1, 5, 10)] == [2 / 8, 4 / 8, 6 / 8]
    assert median_rank([0, 3, 20, 1]) == 3
    assert mean_reciprocal_rank([0, 1, 3]) == pytest.approx((1 + 1 / 2 + 1 / 4) / 3)
