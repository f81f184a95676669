"""Retrieval: at which rank every query finds its partner, and the usual summaries of ranks."""

from typing import Any, TypeVar, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from continual_mm.metrics.ranking import Question, Ties, counted, same

Array = TypeVar("Array", npt.NDArray[Any], Tensor)


def ranks(
    similarity: Array,
    *,
    ties: Ties = "mean",
    positives: npt.NDArray[np.bool_] | Tensor | None = None,
) -> Array:
    """Rank of every query's partner in its row, counted from 0 (found first).

    The rank is the number of wrong answers that are more similar, plus none ("optimistic"), half
    ("mean") or all ("pessimistic") of those that are exactly as similar; the partner is no tie
    with itself. A collapsed model, to which everything is equally similar, thus gets the mean rank
    of chance; counting none of the ties would call it perfect.

    Args:
        similarity: (N, N); row i compares query i with the whole gallery, and item i is its
            partner. Higher is more similar; minus infinity is allowed.
        ties: How to count wrong answers as similar as the partner.
        positives: (N, N), true where an answer is correct as well, such as another caption of the
            same class. The rank is then that of the most similar correct answer among the wrong
            ones. The diagonal is always correct.

    Returns:
        (N,) of what was given: float64 for an array, float32 on the same device for a tensor.

    Raises:
        ValueError: Unless the similarities are square and without NaN, the positives are Boolean
            and of the same shape, and the rule for ties is known.

    >>> ranks(np.array([[0.9, 0.1, 0.2], [0.8, 0.8, 0.1], [0.5, 0.6, 0.4]]))
    array([0. , 0.5, 2. ])
    """
    _check(similarity, ties, positives)
    device = similarity.device if isinstance(similarity, Tensor) else "cpu"
    each = torch.arange(len(similarity))
    own = same(each, each, device)

    def right(rows: slice, columns: slice) -> Tensor | None:
        partners = own(rows, columns)
        if positives is None:
            return partners
        given = _tensor(positives[rows, columns]).to(device)
        return given if partners is None else given | partners

    def block(rows: slice, columns: slice) -> Tensor:
        return _tensor(similarity[rows, columns])

    (found,) = counted(block, (len(each), len(each)), [Question(right)])
    every = found.ranks(ties)
    return every if isinstance(similarity, Tensor) else every.double().numpy()


def best_ranks(similarity: Tensor, right: Tensor) -> Tensor:
    """Rank of the most similar right answer of every query, counted from 0, ties by their mean.

    Args:
        similarity: (N, M) of queries and items; higher is more similar.
        right: (N, M) Boolean, which items are right; a row without any has the rank M.

    Returns:
        (N,) float32: wrong items that are more similar, plus half of those as similar.

    >>> best_ranks(torch.tensor([[0.9, 0.8, 0.8, 0.1]]), torch.tensor([[False, True, False, True]]))
    tensor([1.5000])
    """
    best = similarity.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    greater = ((similarity > best) & ~right).sum(1)
    equal = ((similarity == best) & ~right).sum(1)
    return greater + equal / 2


def recall_at(ranks: npt.ArrayLike, k: int) -> float:
    """Fraction of queries whose partner is among the first ``k``, in [0, 1].

    ``ranks``, at least one, are counted from 0, as :func:`ranks` gives them; k is positive.

    >>> recall_at([0, 3, 12], 10)
    0.6666666666666666
    """
    values = _values(ranks)
    if k < 1:
        raise ValueError(f"recall at {k}; the list of answers needs at least 1")
    return int((values < k).sum()) / len(values)


def median_rank(ranks: npt.ArrayLike) -> float:
    """Median of the ranks counted from 1, as it is published: 1 is best, lower is better."""
    return float(np.median(_values(ranks))) + 1


def mean_reciprocal_rank(ranks: npt.ArrayLike) -> float:
    """Mean of one over the rank counted from 1, in (0, 1]; 1 is best."""
    return float(np.mean(1 / (_values(ranks) + 1)))


def _check(
    similarity: npt.NDArray[Any] | Tensor,
    ties: str,
    positives: npt.NDArray[np.bool_] | Tensor | None,
) -> None:
    shape = tuple(similarity.shape)
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"similarities of shape {shape}; ranks need (N, N), partners diagonal")
    if ties not in get_args(Ties):
        raise ValueError(f"ties {ties!r}; choose among {', '.join(get_args(Ties))}")
    if positives is None:
        return
    if tuple(positives.shape) != shape or positives.dtype not in (torch.bool, np.dtype(bool)):
        raise ValueError(
            f"positives of shape {tuple(positives.shape)} and type {positives.dtype}; they must "
            f"be Boolean, of shape {shape} as the similarities"
        )


def _tensor(rows: npt.NDArray[Any] | Tensor) -> Tensor:
    """A block as a tensor; arrays are copied, since they may be read-only or reversed."""
    return (
        rows.detach() if isinstance(rows, Tensor) else torch.from_numpy(np.array(rows, order="C"))
    )


def _values(ranks: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Ranks as an array, from a sequence, an array or a tensor on any device."""
    plain = ranks.detach().cpu() if isinstance(ranks, Tensor) else ranks
    values = np.asarray(plain, dtype=np.float64)
    if not values.size:
        raise ValueError("no ranks to summarise; at least one query is needed")
    return values


def best_clips(similarity: Tensor, video: Tensor, videos: int) -> Tensor:
    """(queries, videos) similarity to the most similar clip of each video.

    ``video``, (clips,), is the video that each clip is from, 0..videos-1; each video has a clip.

    >>> best_clips(torch.tensor([[0.1, 0.9, 0.5]]), torch.tensor([0, 0, 1]), 2)
    tensor([[0.9000, 0.5000]])
    """
    best = similarity.new_full((len(similarity), videos), -torch.inf)
    return best.scatter_reduce_(1, video.expand(len(similarity), -1), similarity, "amax")


def mean_over_captions(best: Tensor, video: Tensor) -> Tensor:
    """(some, videos) float64 mean similarity of all captions of some videos to each video.

    ``best``, (captions, videos), is from :func:`best_clips`; ``video``, (captions,), is which of
    the first videos each caption is from; each of these has one.
    """
    # A product gives the same bits each time; adding row by row does not on every device. Float64
    # adds float32 without loss: what is equally similar stays so, however many captions there are.
    member = one_hot(video).double()
    return (member.T @ best.double()) / member.sum(0)[:, None]


def votes(answers: Tensor, video: Tensor, videos: int) -> Tensor:
    """(some, videos) how often the captions of some videos answer with each video.

    ``answers``, (captions, k), are videos that each caption answers with, one perhaps repeatedly;
    ``video``, (captions,), is which of some consecutive videos each caption is from.
    """
    cells, some = video[:, None] * videos + answers, int(video.max()) + 1
    return torch.bincount(cells.flatten(), minlength=some * videos).reshape(some, videos)


def first_answers(similarity: Tensor, k: int) -> Tensor:
    """(queries, k) columns of the most similar answers, fewer if there are fewer; first of equals.

    >>> first_answers(torch.tensor([[0.2, 0.7, 0.7]]), 2)
    tensor([[1, 2]])
    """
    return similarity.argsort(dim=1, descending=True, stable=True)[:, :k]


def voted_among(votes: Tensor, k: int, first: int = 0) -> Tensor:
    """(some,) probability that a video is among the k with most votes of its own captions.

    Where videos have equally many :func:`votes`, those that are counted among the k are drawn: two
    videos with most votes each are the first with probability one half. A video without votes is no
    answer. (The published script leaves it to an unstable sort which of them is counted.) The votes
    are (some, videos), of videos from the ``first`` on.

    >>> voted_among(torch.tensor([[3, 1, 0], [2, 2, 0], [1, 0, 0]]), 1)
    tensor([1.0000, 0.5000, 0.0000], dtype=torch.float64)
    """
    own = votes.diagonal(first)[:, None]
    more, equal = (votes > own).sum(1), (votes == own).sum(1)
    share = ((k - more).double() / equal).clamp(0.0, 1.0)
    return torch.where(own.squeeze(1) > 0, share, torch.zeros_like(share))
