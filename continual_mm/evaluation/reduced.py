"""How vectors of held-out items fare as they are, and under linear maps to fewer numbers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from continual_mm.definitions.arrivals import ROLES
from continual_mm.definitions.modality import Pair
from continual_mm.evaluation.indexes import mixed_ranks
from continual_mm.evaluation.pairs import Gallery, score_pair
from continual_mm.evaluation.relevance import Relevance
from continual_mm.learning.projection import Vectors
from continual_mm.metrics.forgetting import harmonic_mean
from continual_mm.metrics.retrieval import recall_at

BYTES = 4  # of a number
MIXED_RANK = 10  # at which recalls from one index of all modalities are taken


@dataclass(frozen=True, slots=True)
class Form:
    """What is done with vectors: a map, None for none, and factors beside others in one index."""

    numbers: int  # that a vector has then
    factors: Mapping[str, float]
    projection: Tensor | None = None

    def gallery(self, vectors: Vectors) -> Gallery:
        """Vectors brought into this form."""
        of = dict(vectors.of)
        if self.projection is not None:
            of = {name: each @ self.projection for name, each in of.items()}
        return Gallery(of, dict(vectors.rows), factors=self.factors)


@dataclass(frozen=True, slots=True)
class Scores:
    """Recalls of the items of one split, as fractions; NaN where there is nothing to recall."""

    old: float  # R@1, mean over pairs and both directions
    new: float
    emergent: float
    harmonic_mean: float  # of old and new pairs
    # R@10 of queries to one index of all other modalities' items, where all partners are to be
    # found; mean over query modalities.
    one_index: float
    pairs: dict[str, float]  # R@1 by pair, both directions averaged


@dataclass(frozen=True, slots=True)
class Measured:
    """How vectors of one form fare."""

    vectors: str  # what they are called
    numbers: int
    bytes: int
    scores: dict[str, Scores]  # by split


def measured(
    forms: Mapping[str, Form],
    held_out: Mapping[str, Vectors],
    roles: Mapping[Pair, str],
    relevance: Relevance,
) -> Iterator[Measured]:
    """Score vectors of each split's items in each form; ``roles`` are those of the pairs."""
    for name, form in forms.items():
        scores = {
            split: _scores(form.gallery(vectors), roles, relevance)
            for split, vectors in held_out.items()
        }
        yield Measured(name, form.numbers, BYTES * form.numbers, scores)


def _scores(gallery: Gallery, roles: Mapping[Pair, str], relevance: Relevance) -> Scores:
    pairs: dict[str, float] = {}
    of_role: dict[str, list[float]] = {role: [] for role in ROLES}
    for each, role in roles.items():
        if {each.first, each.second} <= gallery.embeddings.keys():
            found = score_pair(each, gallery.embeddings, gallery.rows, relevance)
            if not len(found.rows):  # never trained, and of a split without such items
                continue
            recalls = [recall_at(found.asked(direction), 1) for direction in each.directions]
            pairs[str(each)] = float(np.mean(recalls))
            of_role[role].append(pairs[str(each)])
    old, new, emergent = (_mean(of_role[role]) for role in ROLES)
    return Scores(
        old, new, emergent, harmonic_mean(old, new), _one_index(gallery, relevance), pairs
    )


def _one_index(gallery: Gallery, relevance: Relevance) -> float:
    names = list(gallery.embeddings) if len(gallery.embeddings) > 2 else []
    worst = [mixed_ranks(gallery, name, relevance).numpy() for name in names]
    return _mean([recall_at(each, MIXED_RANK) for each in worst if len(each)])


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
