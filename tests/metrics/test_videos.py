"""Clips and whole videos, against loops that read like the definitions."""

import numpy as np
import pytest
import torch

from continual_mm.metrics.retrieval import (
    best_clips,
    first_answers,
    mean_over_captions,
    ranks,
    voted_among,
    votes,
)

VIDEO = torch.tensor([0, 2, 1, 0, 2, 2, 1, 0, 3])
SIMILARITY = torch.randn(9, 9, generator=torch.Generator().manual_seed(2))


def naive_best() -> np.ndarray:
    return np.array(
        [[max(row[c] for c in range(9) if VIDEO[c] == v) for v in range(4)] for row in SIMILARITY]
    )


def test_a_video_is_as_similar_as_its_most_similar_clip() -> None:
    np.testing.assert_array_equal(best_clips(SIMILARITY, VIDEO, 4), naive_best())


def test_a_caption_finds_its_video_where_one_of_its_clips_is_among_the_first() -> None:
    found = ranks(SIMILARITY, positives=VIDEO[:, None] == VIDEO[None, :])
    for caption, row in enumerate(SIMILARITY.numpy()):
        for k in (1, 2, 5):
            first = np.argsort(-row)[:k]
            assert (found[caption] < k) == (VIDEO[caption] in VIDEO[first])


def test_all_captions_of_a_video_speak_with_one_mean() -> None:
    expected = [[naive_best()[v == VIDEO, w].mean() for w in range(4)] for v in range(4)]
    found = mean_over_captions(best_clips(SIMILARITY, VIDEO, 4), VIDEO)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_mean_of_equals_is_the_same_for_one_caption_and_for_many() -> None:
    video = torch.arange(16).repeat_interleave(torch.arange(1, 17))
    alike = torch.rand(16, 1, generator=torch.Generator().manual_seed(3))
    found = mean_over_captions(alike[video].expand(-1, 16), video)
    assert torch.equal(found, alike.double().expand(-1, 16))
    assert ranks(found).tolist() == [7.5] * 16


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_without_equal_counts_the_votes_are_those_of_the_published_count(k: int) -> None:
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


def test_equal_counts_are_as_good_as_a_draw_and_no_vote_is_no_answer() -> None:
    counts = torch.tensor([[2, 2, 2, 1], [3, 1, 1, 1], [4, 4, 0, 0], [0, 1, 2, 3]])
    third = 1 / 3
    for k, expected in {
        1: [third, 0, 0, 1],
        2: [2 * third, third, 0, 1],
        3: [1, 2 * third, 0, 1],
        9: [1, 1, 0, 1],
    }.items():
        assert voted_among(counts, k).tolist() == pytest.approx(expected)


def test_a_clip_may_vote_for_its_video_more_than_once() -> None:
    similarity = torch.tensor([[0.9, 0.8, 0.1], [0.2, 0.3, 0.9], [0.3, 0.2, 0.9]])
    video = torch.tensor([0, 0, 1])
    answers = video[first_answers(similarity, 2)]
    assert votes(answers, video, 2).tolist() == [[3, 1], [1, 1]]
