"""Two ways to compare the same items, mixed; the mixture is chosen on validation items."""

from collections.abc import Sequence

import torch
from torch import Tensor

from continual_mm.data.batch import Batch
from continual_mm.data.dataset import Dataset
from continual_mm.evaluation.composite import embed, similarity
from continual_mm.evaluation.judges import Classes, Similarity
from continual_mm.evaluation.pairs import Gallery
from continual_mm.learning.learner import Learner

WEIGHTS = tuple(step / 10 for step in range(11))
"""Weights of the old path that are tried."""


def mixed(paths: Sequence[Similarity], weights: Sequence[float]) -> Similarity:
    """The weighted sum of similarities; paths of weight 0 are not computed."""
    used = [(path, weight) for path, weight in zip(paths, weights, strict=True) if weight]

    def compare(queries: Tensor, gallery: Tensor) -> Tensor:
        return torch.stack([weight * path(queries, gallery) for path, weight in used]).sum(0)

    return compare


def chosen_weight(judge: Classes, new: Similarity, old: Similarity) -> float:
    """The weight of the old path by which most validation items are classified rightly.

    Of several the smallest; 0, the new path alone, where no validation item has a label.
    """
    if not len(judge.validation):
        return WEIGHTS[0]

    def accuracy(weight: float) -> float:
        together = mixed((new, old), (1 - weight, weight))
        return float(judge.right(together, judge.validation).mean())

    return max(WEIGHTS, key=accuracy)  # the first of several


def old_path(learner: Learner, judge: Classes, embedded: Gallery, dataset: Dataset) -> Similarity:
    """The similarities of the gallery's features through the tower of another modality.

    ``embedded`` has the queries' embeddings. A NotFiniteError if one is not finite.
    """
    protocol, tower = judge.protocol, judge.protocol.through
    name = protocol.through_features or protocol.gallery[0]

    def renamed(batch: Batch) -> Batch:
        lengths = {tower: batch.lengths[name]} if name in batch.lengths else {}
        features, rows = {tower: batch.features[name]}, {tower: batch.rows[name]}
        return Batch(features, lengths, rows, batch.index, batch.stage)

    rows = torch.from_numpy(judge.galleries)
    seen = embed(learner, dataset, rows, (name,), change=renamed)
    both = Gallery({**embedded.embeddings, **seen.embeddings}, {**embedded.rows, **seen.rows})
    return lambda queries, gallery: similarity(both, protocol.query, (tower,), queries, gallery)
