"""Ranks in a gallery whose similarities are computed in blocks and never held as a whole."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, TypeAlias

import torch
from torch import Tensor

SIDE = 1024
"""Rows and columns of a block, at most: its similarities stay in the processor's cache."""

Ties: TypeAlias = Literal["optimistic", "pessimistic", "mean"]

Block = Callable[[slice, slice], Tensor]
"""Some rows and some columns -> their (rows, columns) similarities; higher is more similar."""

Right = Callable[[slice, slice], Tensor | None]
"""Some rows and some columns -> which are right answers of one another, Boolean of that shape on
the device of the similarities; None where there is none."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a matrix: each row for its right columns, or each column for its rows."""

    right: Right
    asked_by: Literal["rows", "columns"] = "rows"

    @property
    def axis(self) -> int:
        """The axis of a block along which the answers lie."""
        return 1 if self.asked_by == "rows" else 0


@dataclass(frozen=True, slots=True)
class Counted:
    """Wrong answers that stand before the most similar right one, (queries,) int32 each."""

    greater: Tensor  # wrong answers that are more similar
    equal: Tensor  # wrong answers that are exactly as similar

    def ranks(self, ties: Ties = "mean") -> Tensor:
        """(queries,) float32 ranks counted from 0, with none, half or all of the ties before."""
        share = {"optimistic": 0.0, "mean": 0.5, "pessimistic": 1.0}[ties]
        return self.greater.float() + share * self.equal.float()

    def listed(self) -> Tensor:
        """Every rank that the published evaluation lists, counted from 0; for comparison only.

        It looks up where the partner's similarity stands in the sorted row, and an answer exactly
        as similar stands there as well. A query with t such answers thus lists 1 + t ranks,
        (queries or more,) float32 query by query, and recalls, which are divided by the number of
        queries, can exceed 1. Without ties these are :meth:`ranks`.

        >>> Counted(torch.tensor([1, 0]), torch.tensor([1, 0])).listed()
        tensor([1., 2., 0.])
        """
        count = self.equal.long() + 1
        first = count.cumsum(0) - count
        place = torch.arange(int(count.sum()), device=count.device)
        return (place - (first - self.greater).repeat_interleave(count)).float()


def spans(count: int, most: int) -> Iterator[slice]:
    """Consecutive spans of 0..count-1, each of about as many and at most ``most``.

    BLAS multiplies a single row in another order than many, so none is much shorter than others.

    >>> [(span.start, span.stop) for span in spans(7, 3)]
    [(0, 2), (2, 4), (4, 7)]
    """
    parts = -(-count // max(1, most))
    for part in range(parts):
        yield slice(count * part // parts, count * (part + 1) // parts)


def same(rows: Tensor, columns: Tensor, device: torch.device | str = "cpu") -> Right:
    """Rows and columns of equal numbers, (n,) and (m,) on the CPU, are right answers."""

    def right(some: slice, others: slice) -> Tensor | None:
        one, other = rows[some], columns[others]
        if not torch.isin(one, other).any():
            return None
        return one.to(device)[:, None] == other.to(device)

    return right


def paired(rows: Tensor, columns: Tensor, device: torch.device | str = "cpu") -> Right:
    """Row ``rows[i]`` and column ``columns[i]`` are right answers; rows ascend, on the CPU."""

    def right(some: slice, others: slice) -> Tensor | None:
        first, last = torch.searchsorted(rows, torch.tensor([some.start, some.stop])).tolist()
        inside = columns[first:last]
        here = (inside >= others.start) & (inside < others.stop)
        if not here.any():
            return None
        found = torch.zeros(some.stop - some.start, others.stop - others.start, dtype=torch.bool)
        found[rows[first:last][here] - some.start, inside[here] - others.start] = True
        return found.to(device)

    return right


def counted(
    block: Block, shape: tuple[int, int], questions: Iterable[Question], *, side: int = SIDE
) -> tuple[Counted, ...]:
    """Count what stands before the right answers, for all questions from one product per block.

    No more than a block is in memory. Blocks with right answers are computed twice: how similar
    the best right answer is has to be known before wrong ones can be compared with it. A query
    without a right answer comes last.

    Args:
        block: Computes similarities; the same ones whenever it is asked.
        shape: Rows and columns of the whole.
        questions: What is asked.
        side: Rows and columns of a block, at most.

    Returns:
        What was counted for each question, on the device of the similarities.

    Raises:
        ValueError: If a similarity is NaN.
    """
    asked = list(questions)
    like = block(slice(0, 0), slice(0, 0))
    blocks = list(product(spans(shape[0], side), spans(shape[1], side)))
    best = _best(block, shape, asked, blocks, like)
    found = [
        tuple(torch.zeros(len(level), dtype=torch.int32, device=like.device) for _ in range(2))
        for level in best
    ]
    bad = torch.zeros(shape[0], dtype=torch.bool, device=like.device)
    for rows, columns in blocks:
        similar = block(rows, columns)
        bad[rows] |= similar.amax(dim=1).isnan()
        for question, level, (greater, equal) in zip(asked, best, found, strict=True):
            queries = rows if question.axis else columns
            wanted, right = level[queries].unsqueeze(question.axis), question.right(rows, columns)
            greater[queries] += _wrong(similar > wanted, right, question.axis)
            equal[queries] += _wrong(similar == wanted, right, question.axis)
    if len(where := bad.nonzero()):
        raise ValueError(
            f"similarities, row {int(where[0])}: NaN cannot be ranked; look for an embedding that "
            "is not finite"
        )
    return tuple(Counted(greater, equal) for greater, equal in found)


def _best(
    block: Block,
    shape: tuple[int, int],
    asked: Sequence[Question],
    blocks: Iterable[tuple[slice, slice]],
    like: Tensor,
) -> list[Tensor]:
    """(queries,) similarity of the most similar right answer; minus infinity without any."""
    best = [like.new_full((shape[1 - question.axis],), -torch.inf) for question in asked]
    for rows, columns in blocks:
        masks = [question.right(rows, columns) for question in asked]
        if all(right is None for right in masks):
            continue
        similar = block(rows, columns)
        for question, level, right in zip(asked, best, masks, strict=True):
            if right is not None:
                queries = rows if question.axis else columns
                found = similar.masked_fill(~right, -torch.inf).amax(dim=question.axis)
                level[queries] = level[queries].maximum(found)
    return best


def _wrong(true: Tensor, right: Tensor | None, axis: int) -> Tensor:
    """Number of true entries per query; adding in 32 bits takes half the time of 64."""
    wrong = true if right is None else true & ~right
    return wrong.sum(dim=axis, dtype=torch.int32)
