"""From clips to whole videos: which video a caption, or all captions of a video together, find."""

import torch
from torch import Tensor
from torch.nn.functional import one_hot


def best_clips(similarity: Tensor, video: Tensor, videos: int) -> Tensor:
    """(queries, videos) similarity to the most similar clip of each video.

    Args:
        similarity: (queries, clips).
        video: (clips,) the video that each clip is from, 0..videos-1; each video has a clip.
        videos: Number of videos.

    >>> best_clips(torch.tensor([[0.1, 0.9, 0.5]]), torch.tensor([0, 0, 1]), 2)
    tensor([[0.9000, 0.5000]])
    """
    best = similarity.new_full((len(similarity), videos), -torch.inf)
    return best.scatter_reduce_(1, video.expand(len(similarity), -1), similarity, "amax")


def mean_over_captions(best: Tensor, video: Tensor) -> Tensor:
    """(videos, videos) float64 mean of what all captions of a video say of each video.

    Args:
        best: (captions, videos), from :func:`best_clips`.
        video: (captions,) the video that each caption is from; each video has one.
    """
    # A product gives the same bits each time; adding row by row does not on every device. Float64
    # adds float32 without loss: what is equally similar stays so, however many captions there are.
    member = one_hot(video, best.shape[1]).double()
    return (member.T @ best.double()) / member.sum(0)[:, None]


def votes(answers: Tensor, video: Tensor, videos: int) -> Tensor:
    """(videos, videos) how often the captions of a video answer with each video.

    Args:
        answers: (captions, k) videos that each caption answers with; one may be there repeatedly.
        video: (captions,) the video that each caption is from.
        videos: Number of videos.
    """
    cells = video[:, None] * videos + answers
    return torch.bincount(cells.flatten(), minlength=videos * videos).reshape(videos, videos)


def first_answers(similarity: Tensor, k: int) -> Tensor:
    """(queries, k) columns of the most similar answers, fewer if there are fewer; first of equals.

    >>> first_answers(torch.tensor([[0.2, 0.7, 0.7]]), 2)
    tensor([[1, 2]])
    """
    return similarity.argsort(dim=1, descending=True, stable=True)[:, :k]


def voted_among(votes: Tensor, k: int) -> Tensor:
    """(videos,) how surely each video is among the k with most votes of its own captions, 0 to 1.

    Where videos have equally many votes, those that are counted among the k are drawn: two videos
    with most votes each are the first with probability one half. A video without votes is no
    answer. (The published script leaves it to an unstable sort which of them is counted.)

    Args:
        votes: (videos, videos), from :func:`votes`.
        k: Length of the list of answers.

    >>> voted_among(torch.tensor([[3, 1, 0], [2, 2, 0], [1, 0, 0]]), 1)
    tensor([1.0000, 0.5000, 0.0000], dtype=torch.float64)
    """
    own = votes.diagonal()[:, None]
    more, equal = (votes > own).sum(1), (votes == own).sum(1)
    share = ((k - more).double() / equal).clamp(0.0, 1.0)
    return torch.where(own.squeeze(1) > 0, share, torch.zeros_like(share))
