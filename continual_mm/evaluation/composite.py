"""Embeddings of the items of any dataset, and similarities of several modalities together."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product

import torch
from torch import Tensor, nn

from continual_mm.data.batch import Items, Share
from continual_mm.data.dataset import Dataset
from continual_mm.definitions.modality import pair
from continual_mm.evaluation.pairs import Gallery, Gathering
from continual_mm.learning.learner import EVALUATION_ROWS, Learner
from continual_mm.learning.loader import BlockLoader

_BLOCK_STEPS = 1 << 19  # time steps in a padded block: 512 audio clips of ten seconds, as published


def embed(learner: Learner, dataset: Dataset, rows: Tensor, modalities: Sequence[str]) -> Gallery:
    """Embed items a block at a time, as an evaluation does; nothing of the learner is changed.

    ``rows`` are (n,) ascending rows of the dataset. In reference mode items are padded with zeros
    to the time of their own dataset, not of the one that was trained on, as each published program
    of evaluation does. A NotFiniteError if an embedding is not finite.
    """
    share = Share(learner.stage, rows, tuple(modalities))
    filled = learner.space.settings.reference
    items = Items(dataset, (share,), filled=filled)
    gathering = Gathering()
    with torch.no_grad(), _evaluating(learner.model):
        for block in BlockLoader(items, rows=_height(items) if filled else EVALUATION_ROWS):
            batch = block.to(learner.device)
            with learner.precision():
                gathering.add(learner.space, batch, learner.model(batch))
    return gathering.gallery(learner, f"'{dataset.card.name}' test")


def _height(items: Items) -> int:
    """Rows of a padded block: fewer, where items are long."""
    names = {name for share in items.shares for name in share.modalities}
    columns = [items.dataset.columns[name].modality for name in names]
    longest = max([1, *(each.shape[0] for each in columns if each.kind.has_length)])
    return max(1, min(EVALUATION_ROWS, _BLOCK_STEPS // longest))


def similarity(
    embedded: Gallery,
    query: Sequence[str],
    answer: Sequence[str],
    queries: Tensor,
    gallery: Tensor,
) -> Tensor:
    """(queries, gallery) similarities, summed over all pairs of a query and a gallery modality.

    ``queries`` and ``gallery`` are dataset rows that have all modalities of ``query`` or
    ``answer``. Where no pair has towers of its own, the sum is the product of the sums of
    embeddings on either side, and is computed so. Products are taken in float64 and rounded to
    float32 at the end: equal embeddings are then equally similar whatever the size of the matrix,
    which products in float32 do not guarantee, and a tie is a tie.
    """
    pairs = [pair(*both) for both in product(query, answer)]
    if not any(each in embedded.own for each in pairs):
        return _products([(_sum(embedded, query, queries), _sum(embedded, answer, gallery))])
    sides = []
    for first, second in product(query, answer):
        embeddings = embedded.of_pair(pair(first, second))
        left = embeddings[first][_places(embedded, first, queries)]
        sides.append((left, embeddings[second][_places(embedded, second, gallery)]))
    return _products(sides)


def _products(sides: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """(q, g) float32 sum of products of (q, D) and (g, D)."""
    products = (left.double() @ right.double().T for left, right in sides)
    total = next(products)
    for each in products:
        total += each
    return total.float()


def _sum(embedded: Gallery, names: Sequence[str], rows: Tensor) -> Tensor:
    """(n, D) float64."""
    parts = [embedded.embeddings[name][_places(embedded, name, rows)] for name in names]
    return torch.stack(parts).sum(0, dtype=torch.float64)


def _places(embedded: Gallery, name: str, rows: Tensor) -> Tensor:
    """Positions of dataset rows among the embeddings of a modality."""
    return torch.searchsorted(embedded.rows[name], rows).to(embedded.embeddings[name].device)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and each module's own mode afterwards: frozen ones are never in training."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
