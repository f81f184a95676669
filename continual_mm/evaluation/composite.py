"""Embeddings of the items of any dataset, and similarities of several modalities together."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product

import torch
from torch import Tensor, nn

from continual_mm.data.batch import Batch, Items, Share
from continual_mm.data.dataset import Dataset
from continual_mm.definitions.modality import pair
from continual_mm.definitions.terms import Side
from continual_mm.evaluation.pairs import Gallery, Gathering
from continual_mm.learning.learner import EVALUATION_ROWS, Learner
from continual_mm.learning.loader import BlockLoader

_BLOCK_STEPS = 1 << 19  # time steps in a padded block: 512 audio clips of ten seconds, as published


def embed(
    learner: Learner,
    dataset: Dataset,
    rows: Tensor,
    modalities: Sequence[str],
    sides: Iterable[Side] = (),
    *,
    change: Callable[[Batch], Batch] = lambda batch: batch,
) -> Gallery:
    """Embed items a block at a time, as an evaluation does; nothing of the learner is changed.

    ``rows`` are (n,) ascending rows of the dataset, ``sides`` modalities that are wanted together
    as well, where the space fuses them. In reference mode items are padded with zeros
    to the time of their own dataset, not of the one that was trained on, as each published program
    of evaluation does. ``change`` is what is done with a block before. A NotFiniteError if an
    embedding is not finite.
    """
    share = Share(learner.stage, rows, tuple(modalities))
    filled = learner.space.settings.reference
    items = Items(dataset, (share,), filled=filled)
    gathering = Gathering(sides)
    with torch.no_grad(), _evaluating(learner.model):
        for block in BlockLoader(items, rows=_height(items) if filled else EVALUATION_ROWS):
            batch = change(block).to(learner.device)
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
    *,
    mean: bool = False,
) -> Tensor:
    """(queries, gallery) similarities of sides, each of one modality or of several together.

    Several are summed over all pairs of a query and a gallery modality, or with ``mean`` averaged
    over those that the two items have, unless the space fuses them. ``queries`` and ``gallery`` are
    dataset rows that have all modalities of ``query`` or ``answer``, with ``mean`` one or more.

    Where no pair has towers of its own, the sum is the product of the sums of embeddings on either
    side, and is computed so. Products are taken in float64 and rounded to float32 at the end: equal
    embeddings are then equally similar whatever the size of the matrix, which products in float32
    do not guarantee, and a tie is a tie.
    """
    together = embedded.together.keys() & {tuple(query), tuple(answer)}
    pairs = [pair(*both) for both in product(query, answer)]
    if together or not any(each in embedded.own for each in pairs):
        left = _vectors(embedded, query, queries, mean=mean)
        return _products([(left, _vectors(embedded, answer, gallery, mean=mean))])
    sides = []
    for first, second in product(query, answer):
        embeddings = embedded.of_pair(pair(first, second))
        left = _part(embeddings[first], embedded.rows[first], queries)
        right = _part(embeddings[second], embedded.rows[second], gallery)
        sides.append((left, right))
    found = _products(sides)
    if not mean:
        return found
    counts = (
        _count(embedded, names, rows) for names, rows in ((query, queries), (answer, gallery))
    )
    return found / torch.outer(*counts).to(found)


def _products(sides: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """(q, g) float32 sum of products of (q, D) and (g, D)."""
    products = (left.double() @ right.double().T for left, right in sides)
    total = next(products)
    for each in products:
        total += each
    return total.float()


def _vectors(embedded: Gallery, names: Sequence[str], rows: Tensor, *, mean: bool) -> Tensor:
    """(n, D) float64 of the side of some dataset rows."""
    if (fused := embedded.together.get(tuple(names))) is not None:
        return _part(fused.embedding, fused.rows, rows).double()
    parts = [_part(embedded.embeddings[name], embedded.rows[name], rows) for name in names]
    total = torch.stack(parts).sum(0, dtype=torch.float64)
    return total / _count(embedded, names, rows).to(total)[:, None] if mean else total


def _count(embedded: Gallery, names: Sequence[str], rows: Tensor) -> Tensor:
    """(n,) how many of some modalities dataset rows have."""
    return torch.stack([torch.isin(rows, embedded.rows[name]) for name in names]).sum(0)


def _part(embeddings: Tensor, own: Tensor, rows: Tensor) -> Tensor:
    """(n, D) embeddings of dataset rows, zeros of those that are not among ``own``."""
    places = torch.searchsorted(own, rows).clamp(max=max(len(own) - 1, 0))
    there = own[places] == rows
    found = embeddings[places.to(embeddings.device)]
    return found if bool(there.all()) else found * there.to(found)[:, None]


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
