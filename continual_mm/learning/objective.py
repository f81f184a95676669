"""A space's losses over whichever modalities and pairs the rows of a batch have."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from continual_mm.data.batch import Batch, answering
from continual_mm.definitions.modality import Pair
from continual_mm.definitions.terms import Side, Term, trained_terms, weights_of
from continual_mm.learning.clusters import Clusters
from continual_mm.learning.growth import of_pair, own_of, together_of
from continual_mm.losses.clustering import centroid_cross_entropy
from continual_mm.losses.contrastive import masked_margin_softmax
from continual_mm.losses.reconstruction import reconstruction_loss, squared_error
from continual_mm.space.space import Embedded, JointSpace

Terms = dict[str, Tensor]  # name of a loss term -> its weighted value, a scalar


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive rows of a batch: the current items, or the remembered ones behind them."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def paired_rows(batch: Batch, pair: Pair, stages: Iterable[int], part: Part) -> Tensor:
    """Batch rows in a part that have both modalities and whose stage trains the pair."""
    return rows_with(batch, (pair.first, pair.second), stages, part)


def rows_with(batch: Batch, modalities: Iterable[str], stages: Iterable[int], part: Part) -> Tensor:
    """Batch rows in a part that have all of some modalities, and are of one of some stages."""
    wanted = torch.stack([batch.present(name) for name in modalities]).all(0)
    wanted &= torch.isin(batch.stage, torch.tensor(sorted(stages), dtype=torch.long))
    wanted[: part.start] = False
    wanted[part.stop :] = False
    return wanted.nonzero().squeeze(1)


def embeddings_at(
    batch: Batch, embedded: Mapping[str, Embedded], name: str, rows: Tensor
) -> Tensor:
    """(n, D) embeddings of one modality at some batch rows, all of which have it."""
    return gathered(embedded[name].embedding, batch.positions(name, rows))


def gathered(values: Tensor, where: Tensor) -> Tensor:
    """``values[where]``, a view where possible; ``where`` ascends without repeats, on the CPU."""
    count = where.shape[0]
    if count and int(where[-1]) - int(where[0]) + 1 == count:
        return values[int(where[0]) : int(where[-1]) + 1]
    return values[where.to(values.device, non_blocking=True)]


def stages_of(pairs: Mapping[int, tuple[Pair, ...]]) -> dict[Pair, list[int]]:
    """Pair -> stages whose rows train it, in order of the pairs."""
    found: dict[Pair, list[int]] = {}
    for stage, trained in pairs.items():
        for pair in trained:
            found.setdefault(pair, []).append(stage)
    return dict(sorted(found.items()))


def right_answers(batch: Batch, pair: Pair, rows: Tensor) -> Tensor | None:
    """(n, n) which of some batch rows, all of which have a pair, answer one another.

    Row i is answered by the second modality of every row that shows it with the first of row i, in
    two such rows perhaps. True on the diagonal; None where nothing else is.
    """
    return answering(*(_shown(batch, (name,), rows) for name in (pair.first, pair.second)))


def contrast(
    space: JointSpace,
    batch: Batch,
    embedded: Mapping[str, Embedded],
    pairs: Mapping[int, tuple[Pair, ...]],
    part: Part,
) -> Terms:
    """The contrastive term of every pair that rows of the part, by their stage, train.

    All rows that train a pair, whatever their stage, are one another's negatives, save those that
    answer one another, such as captions of one recording. Where the space fuses modalities, so are
    those that train a term of several, see :func:`combinatorial_contrast`.
    """
    if space.fuses:
        return combinatorial_contrast(space, batch, embedded, pairs, part)
    terms: Terms = {}
    for pair, stages in stages_of(pairs).items():
        rows = paired_rows(batch, pair, stages, part)
        if rows.shape[0] < 2:  # a row without negatives says nothing
            continue
        seen = of_pair(embedded, pair)
        first = embeddings_at(batch, seen, pair.first, rows)
        second = embeddings_at(batch, seen, pair.second, rows)
        similarity = space.logit_scale * (first @ second.T)
        margin = space.settings.margin
        right = right_answers(batch, pair, rows)
        terms[f"contrast/{pair}"] = masked_margin_softmax(similarity, margin=margin, right=right)
    return terms


def combinatorial_contrast(
    space: JointSpace,
    batch: Batch,
    embedded: Mapping[str, Embedded],
    pairs: Mapping[int, tuple[Pair, ...]],
    part: Part,
) -> Terms:
    r"""The contrast of modalities, and of several together, that rows of the part train.

    .. math::
        \frac{\sum_{(S, T)} w_{ST}\, \ell(e_S, e_T)}{\sum_{(S, T)} w_{ST}}

    over disjoint sets of modalities S and T, of the rows that have all of both (Shvetsova et al.
    2022, arXiv 2112.04446). A term without two such rows is in neither sum.
    """
    weights = weights_of(space.settings)
    terms: Terms = {}
    total = 0.0
    for term, stages in trained_terms(pairs, space.settings).items():
        rows = rows_with(batch, term.names, stages, part)
        if rows.shape[0] < 2:
            continue
        first, second = (_side(batch, embedded, term, side, rows) for side in term.sides)
        value = masked_margin_softmax(
            space.logit_scale * (first @ second.T),
            margin=space.settings.margin,
            right=answering(*(_shown(batch, side, rows) for side in term.sides)),
        )
        weight = weights.get(term, 1.0)
        terms[f"contrast/{term}"] = weight * value
        total += weight
    return {name: value / total for name, value in terms.items()}


def _side(
    batch: Batch, embedded: Mapping[str, Embedded], term: Term, side: Side, rows: Tensor
) -> Tensor:
    """(n, D) embeddings of one side of a term at some rows, as its pair sees it if it is one."""
    if len(side) == 1:
        seen = of_pair(embedded, *term.pairs) if len(term.pairs) == 1 else embedded
        return embeddings_at(batch, seen, *side, rows)
    together = together_of(embedded)[side]
    return gathered(together.embedding, torch.searchsorted(together.rows, rows))


def _shown(batch: Batch, side: Side, rows: Tensor) -> Tensor | None:
    """(n,) numbers, equal for rows that show the same in all modalities of a side, if some do."""
    alike = [(name, batch.alike(name)) for name in side]
    found = [each[batch.positions(name, rows)] for name, each in alike if each is not None]
    if len(found) < len(side):
        return None
    if len(found) == 1:
        return found[0]
    numbers: Tensor = torch.unique(torch.stack(found), dim=1, return_inverse=True)[1]
    return numbers


def clustering(
    space: JointSpace,
    clusters: Clusters,
    batch: Batch,
    embedded: Mapping[str, Embedded],
    part: Part,
) -> Terms:
    """The clustering term of every modality in the part, all towards the row's one label.

    Where pairs have towers of their own for a modality, its term is the mean of theirs. With
    ``cluster_mean`` there is one term instead, that of the modalities' mean in the space.
    """
    weight = space.settings.cluster_weight
    if not clusters.active or not weight or not len(part):
        return {}
    inside = _inside(batch, embedded, part)
    if not inside:
        return {}
    parts = {name: embeddings_at(batch, embedded, name, rows) for name, rows in inside.items()}
    seen = {
        name: [embeddings_at(batch, own, name, inside[name]) for own in own_of(embedded, name)]
        or [values]
        for name, values in parts.items()
    }
    here = {name: rows - part.start for name, rows in inside.items()}
    joint = clusters.joint(parts, here, len(part))
    labels = clusters.labels(joint, refit=part.start == 0)
    if space.settings.cluster_mean:
        anything = torch.zeros(len(part), dtype=torch.bool)
        anything[torch.cat(list(here.values()))] = True
        rows = anything.nonzero().squeeze(1)
        name = "-".join(sorted(parts))
        seen, here = {name: [joint[rows.to(joint.device)]]}, {name: rows}
    shares = len(seen)
    if shares == 2 and "two_over_three" in space.settings.bugs:
        shares = 3
    return {
        f"cluster/{name}": weight
        / shares
        * _mean(
            centroid_cross_entropy(
                space.logit_scale * values,
                space.centroids,
                labels[here[name].to(labels.device)],
                margin=space.settings.margin,
            )
            for values in views
        )
        for name, views in seen.items()
    }


def reconstruction(
    space: JointSpace, batch: Batch, embedded: Mapping[str, Embedded], part: Part
) -> Terms:
    """The reconstruction term of every modality, over pairs' own towers as in clustering."""
    weight = space.settings.reconstruction_weight
    if not weight:
        return {}
    error = squared_error if space.settings.reference else reconstruction_loss
    terms: Terms = {}
    for name, rows in _inside(batch, embedded, part).items():
        where = batch.positions(name, rows)
        views = [own[name] for own in own_of(embedded, name)] or [embedded[name]]
        terms[f"reconstruction/{name}"] = weight * _mean(
            error(
                space.reconstruct(name, gathered(view.embedding, where)),
                gathered(view.pooled, where),
            )
            for view in views
        )
    return terms


def _mean(values: Iterable[Tensor]) -> Tensor:
    """The mean of some scalars; of a single one the same bits."""
    first, *others = values
    return sum(others, start=first) / (1 + len(others)) if others else first


def _inside(batch: Batch, embedded: Mapping[str, Embedded], part: Part) -> dict[str, Tensor]:
    """Modality -> batch rows of the part that have it; modalities that none has are left out."""
    inside = {}
    for name in embedded:
        rows = batch.rows[name]
        rows = rows[(rows >= part.start) & (rows < part.stop)]
        if rows.shape[0]:
            inside[name] = rows
    return inside
