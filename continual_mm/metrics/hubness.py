"""Hubs: answers that are among the nearest of very many queries."""

import torch
from torch import Tensor

BLOCK = 1024  # queries at once


def occurrences(queries: Tensor, answers: Tensor, *, k: int = 10) -> Tensor:
    """(m,) in how many queries' k nearest each of (m, D) answers is, of (n, D) queries.

    Nearest is by inner product. There are k, or m if that is less, of each query.
    """
    found = torch.zeros(len(answers), dtype=torch.int64, device=answers.device)
    for some in torch.split(queries, BLOCK):
        nearest = (some @ answers.T).topk(min(k, len(answers)), dim=1).indices.flatten()
        found += torch.bincount(nearest, minlength=len(answers))
    return found


def hubness(queries: Tensor, answers: Tensor, *, k: int = 10) -> float:
    """Skewness of :func:`occurrences` (Radovanovic et al. 2010, JMLR 11).

    0 where all answers are found equally often, positive where a few are found by most queries; NaN
    where all are found exactly as often.
    """
    counts = occurrences(queries, answers, k=k).double()
    apart = counts - counts.mean()
    spread = apart.square().mean().sqrt()
    return float((apart**3).mean() / spread**3) if float(spread) > 0 else float("nan")
