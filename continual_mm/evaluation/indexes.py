"""What users of an index meet: items of all modalities in one, and one of an earlier stage."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import torch
from numpy.typing import NDArray
from torch import Tensor

from continual_mm.definitions.modality import Pair, all_pairs, pair
from continual_mm.evaluation.pairs import Evaluation, Gallery, score_pair
from continual_mm.evaluation.relevance import Relevance
from continual_mm.metrics.ranking import spans
from continual_mm.metrics.retrieval import best_ranks, recall_at

_ELEMENTS_AT_ONCE = 1 << 22  # similarities of a mixed index in one block
MIXED_RECALLS = (5, 10)
EARLIER_RECALLS = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class IndexScore:
    """Queries of one modality to an index at a stage's end."""

    stage: int  # 1-based stage
    step: int  # optimiser steps over all stages until then
    # `mixed`: the index holds the items of all other modalities, and a query is answered if its
    # partners in all of them are among the first k. `earlier`: it holds vectors of one modality
    # that were computed at the end of the stage before.
    kind: Literal["mixed", "earlier"]
    query: str  # modality of the queries
    gallery: tuple[str, ...]  # modalities in the index
    queries: int  # how many queries there were
    measures: Mapping[str, float]  # `recall@k` as fractions

    def as_json(self) -> dict[str, Any]:
        """The score as ``scores.json`` has it."""
        return {**asdict(self), "gallery": list(self.gallery)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read what :meth:`as_json` wrote."""
        return cls(**{**record, "gallery": tuple(record["gallery"])})


class Indexes:
    """Scores indexes at each stage's end; an observer of evaluations, which changes nothing.

    A space that has grown is compared with earlier vectors in the coordinates that these have.

    Args:
        callback: Called with each score.
        relevance: Which rows answer one another.
        split: Whose items are scored.
        items: How many items' vectors are kept until the next stage has ended, at most.
    """

    on_device = False

    def __init__(
        self,
        callback: Callable[[IndexScore], None],
        relevance: Relevance,
        *,
        split: str = "test",
        items: int = 2000,
    ) -> None:
        self._callback = callback
        self._relevance = relevance
        self._split = split
        self._items = items
        self._kept = Gallery({}, {})

    def __call__(self, evaluation: Evaluation, gallery: Gallery) -> None:
        """Score the items at the end of a stage, and keep their vectors."""
        if evaluation.split != self._split or not evaluation.final:
            return
        for score in (*self._mixed(evaluation, gallery), *self._earlier(evaluation, gallery)):
            self._callback(score)
        self._keep(gallery)

    def _mixed(self, evaluation: Evaluation, gallery: Gallery) -> Iterator[IndexScore]:
        names = tuple(gallery.embeddings)
        for query in names if len(names) > 2 else ():
            worst = mixed_ranks(gallery, query, self._relevance)
            others = tuple(name for name in names if name != query)
            if len(worst):
                yield _score(evaluation, "mixed", query, others, worst.numpy(), MIXED_RECALLS)

    def _earlier(self, evaluation: Evaluation, gallery: Gallery) -> Iterator[IndexScore]:
        for each in all_pairs(tuple(gallery.embeddings)):
            now, before = gallery.of_pair(each), self._kept.of_pair(each)
            for query, answer in each.directions:
                if answer not in before:
                    continue
                size = before[answer].shape[1]
                found = score_pair(
                    each,
                    {query: now[query][:, :size], answer: before[answer].to(now[query].device)},
                    {query: gallery.rows[query], answer: self._kept.rows[answer]},
                    self._relevance,
                )
                ranks = found.asked((query, answer))
                if len(ranks):
                    yield _score(evaluation, "earlier", query, (answer,), ranks, EARLIER_RECALLS)

    def _keep(self, gallery: Gallery) -> None:
        every = torch.unique(torch.cat(list(gallery.rows.values())))
        count = min(len(every), self._items)
        chosen = every[torch.arange(count) * len(every) // max(count, 1)]
        where = {name: torch.isin(rows, chosen) for name, rows in gallery.rows.items()}

        def kept(vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {
                name: values.detach()[where[name].to(values.device)].cpu()
                for name, values in vectors.items()
            }

        self._kept = Gallery(
            kept(gallery.embeddings),
            {name: rows[where[name]] for name, rows in gallery.rows.items()},
            {each: kept(own) for each, own in gallery.own.items()},
        )

    def state(self) -> dict[str, Tensor]:
        """The kept vectors and their dataset rows."""
        own = {
            f"own/{each}/{name}": values
            for each, vectors in self._kept.own.items()
            for name, values in vectors.items()
        }
        vectors = {f"vectors/{name}": values for name, values in self._kept.embeddings.items()}
        return vectors | own | {f"rows/{name}": rows for name, rows in self._kept.rows.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore :meth:`state`."""
        self._kept = Gallery({}, {})
        for key, value in sorted(state.items()):
            kind, _, name = key.partition("/")
            if kind == "own":
                each, _, modality = name.partition("/")
                self._kept.own.setdefault(Pair.parse(each), {})[modality] = value.cpu()
            else:
                into = self._kept.embeddings if kind == "vectors" else self._kept.rows
                into[name] = value.cpu()


def _score(
    evaluation: Evaluation,
    kind: Literal["mixed", "earlier"],
    query: str,
    gallery: tuple[str, ...],
    ranks: NDArray[Any],
    recalls: tuple[int, ...],
) -> IndexScore:
    return IndexScore(
        stage=evaluation.stage + 1,
        step=evaluation.step,
        kind=kind,
        query=query,
        gallery=gallery,
        queries=len(ranks),
        measures={f"recall@{k}": recall_at(ranks, k) for k in recalls},
    )


def mixed_ranks(gallery: Gallery, query: str, relevance: Relevance) -> Tensor:
    """The worst rank of a query's partners in an index of all other modalities' items.

    Of several partners in one modality, such as all captions of a recording, the best one counts.

    Args:
        gallery: The embeddings.
        query: Modality of the queries.
        relevance: Which rows answer one another.

    Returns:
        (n,) 0-based, of each query with partners in two modalities or more.
    """
    rows = {name: own.numpy() for name, own in gallery.rows.items()}
    names = [name for name in gallery.embeddings if name != query]
    matched = [relevance.matching((query,), (name,), rows[query], rows[name]) for name in names]
    sides, relations = [], []
    for name, each in zip(names, matched, strict=True):
        vectors = gallery.of_pair(pair(query, name))
        own, index = (
            vectors[of][torch.from_numpy(some).to(vectors[of].device)]
            for of, some in ((query, each.first), (name, each.second))
        )
        factor = gallery.factors.get(name, 1.0)
        sides.append((own, index if factor == 1.0 else factor * index))
        relations.append((each.right(index.device), slice(0, len(index))))
    partners = torch.stack([torch.from_numpy(each.answers[0] > 0) for each in matched])
    asked = partners.sum(0) > 1
    worst = torch.zeros(len(asked))
    most = _ELEMENTS_AT_ONCE // max(1, sum(len(index) for _, index in sides))
    for span in spans(len(asked), most):
        similarity = torch.cat([own[span] @ index.T for own, index in sides], dim=1)
        column = 0
        for has, (relation, every) in zip(partners, relations, strict=True):
            right = torch.zeros(similarity.shape, dtype=torch.bool, device=similarity.device)
            theirs = relation(span, every)
            if theirs is not None:
                right[:, column : column + every.stop] = theirs
            column += every.stop
            found = best_ranks(similarity, right).cpu()
            worst[span] = worst[span].maximum(found.where(has[span], 0.0))
    return worst[asked]
