"""Retrieval: at which rank every query finds its partner, and the usual summaries of ranks."""

from typing import Any, Literal, TypeAlias, TypeVar, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import one_hot

Ties: TypeAlias = Literal["optimistic", "pessimistic", "mean"]
Array = TypeVar("Array", npt.NDArray[Any], Tensor)

_ELEMENTS_AT_ONCE = 2**20
"""Similarities compared in one block, which then stays in the processor's cache."""


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
    queries = len(similarity)
    step = max(1, _ELEMENTS_AT_ONCE // max(1, queries))
    found = [
        _block_ranks(
            _tensor(similarity[start : start + step]),
            None if positives is None else _tensor(positives[start : start + step]),
            start,
            ties,
        )
        for start in range(0, queries, step)
    ]
    every = torch.cat(found) if found else torch.empty(0)
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


def listed_ranks(similarity: Tensor) -> Tensor:
    """Every rank that the published evaluation lists, counted from 0; for comparison only.

    It looks up where the partner's similarity stands in the sorted row of the (N, N) similarities,
    and an answer exactly as similar stands there as well. A query with t such answers thus lists 1
    + t ranks, (N or more,) query by query, and recalls, which are divided by the number of queries,
    can exceed 1. Without ties it is :func:`ranks`.

    >>> listed_ranks(torch.tensor([[0.5, 0.9, 0.5], [0.1, 0.2, 0.1], [0.1, 0.2, 0.3]]))
    tensor([1., 2., 0., 0.])
    """
    partners = similarity.diagonal()[:, None]
    greater, equal = (similarity > partners).sum(1), (similarity == partners).sum(1)
    first = equal.cumsum(0) - equal
    place = torch.arange(int(equal.sum()), device=similarity.device)
    return (place - (first - greater).repeat_interleave(equal)).float()


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


def _block_ranks(block: Tensor, positives: Tensor | None, start: int, ties: Ties) -> Tensor:
    """Rank some consecutive queries, the first of which is query ``start``."""
    bad = block.amax(dim=1).isnan().nonzero()
    if len(bad):
        raise ValueError(
            f"similarities, row {start + int(bad[0])}: NaN cannot be ranked; look for an "
            "embedding that is not finite"
        )
    partners = block.diagonal(start)
    if positives is None:
        greater = _count(block > partners[:, None])
        equal = _count(block == partners[:, None]) - 1
    else:
        correct = positives.to(block.device, copy=True)
        correct.diagonal(start).fill_(True)
        best = torch.where(correct, block, partners[:, None]).amax(1, keepdim=True)
        greater = _count((block > best) & ~correct)
        equal = _count((block == best) & ~correct)
    share = {"optimistic": 0.0, "mean": 0.5, "pessimistic": 1.0}[ties]
    return greater.float() + share * equal.float()


def _count(true: Tensor) -> Tensor:
    """Number of true entries per row; adding in 32 bits takes half the time of 64."""
    return true.sum(dim=1, dtype=torch.int32)


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
    """(videos, videos) float64 mean similarity of all captions of a video to each video.

    ``best``, (captions, videos), is from :func:`best_clips`; ``video``, (captions,), is the video
    that each caption is from; each video has one.
    """
    # A product gives the same bits each time; adding row by row does not on every device. Float64
    # adds float32 without loss: what is equally similar stays so, however many captions there are.
    member = one_hot(video, best.shape[1]).double()
    return (member.T @ best.double()) / member.sum(0)[:, None]


def votes(answers: Tensor, video: Tensor, videos: int) -> Tensor:
    """(videos, videos) how often the captions of a video answer with each video.

    ``answers``, (captions, k), are videos that each caption answers with, one perhaps repeatedly;
    ``video``, (captions,), is the one that each caption is from.
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
    """(videos,) probability that a video is among the k with most votes of its own captions.

    Where videos have equally many :func:`votes`, those that are counted among the k are drawn: two
    videos with most votes each are the first with probability one half. A video without votes is no
    answer. (The published script leaves it to an unstable sort which of them is counted.)

    >>> voted_among(torch.tensor([[3, 1, 0], [2, 2, 0], [1, 0, 0]]), 1)
    tensor([1.0000, 0.5000, 0.0000], dtype=torch.float64)
    """
    own = votes.diagonal()[:, None]
    more, equal = (votes > own).sum(1), (votes == own).sum(1)
    share = ((k - more).double() / equal).clamp(0.0, 1.0)
    return torch.where(own.squeeze(1) > 0, share, torch.zeros_like(share))
