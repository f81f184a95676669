"""Score every pair seen so far on a fixed gallery."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from continual_mm.data.batch import Batch
from continual_mm.definitions.modality import Pair, all_pairs
from continual_mm.definitions.terms import Side
from continual_mm.evaluation.relevance import Relevance
from continual_mm.learning.avalanche import BaseLogger, EvaluationPlugin, MetricValue, PluginMetric
from continual_mm.learning.growth import Together, Views
from continual_mm.learning.guard import NotFiniteError
from continual_mm.metrics.ranking import Question, counted
from continual_mm.metrics.retrieval import mean_reciprocal_rank, median_rank, recall_at
from continual_mm.space.space import JointSpace

if TYPE_CHECKING:
    from continual_mm.learning.learner import Learner


RECALLS = (1, 5, 10)
Direction = tuple[str, str]  # (query modality, gallery modality)
OWN = Relevance()
"""Every row answers itself alone."""


@dataclass(frozen=True, slots=True)
class PairRanks:
    """The ranks of one pair, query by query."""

    pair: Pair
    # (n,) dataset rows that have both modalities: queries and gallery of both directions.
    rows: NDArray[np.int64]
    # Direction -> (n,) 0-based rank of each query's best right answer; NaN for a row whose query
    # an earlier row has asked already.
    ranks: dict[Direction, NDArray[np.float64]]
    chance: dict[Direction, float]  # direction -> recall at 1 of a random order
    # Direction -> the ranks that count instead, several for a query with ties; only with the
    # published mistake `ties_listed_each`.
    listed: dict[Direction, NDArray[np.float64]] = field(default_factory=dict)
    # Direction -> how many answers there are, where that or the number of queries is not n.
    gallery: dict[Direction, int] = field(default_factory=dict)
    # (n,) the same number for rows that share a recording; None where all queries differ.
    recordings: NDArray[np.int64] | None = None

    def asked(self, direction: Direction) -> NDArray[np.float64]:
        """(queries,) the ranks of queries, each once."""
        ranks = self.ranks[direction]
        return ranks[~np.isnan(ranks)]

    def scores(self, direction: Direction) -> dict[str, float]:
        """Recalls as fractions, the median rank (1-based) and the mean reciprocal rank."""
        found = self.asked(direction)
        listed = self.listed.get(direction, found)
        share = len(listed) / max(len(found), 1)
        recalls = {f"recall@{k}": share * recall_at(listed, k) for k in RECALLS}
        return {
            **recalls,
            "median_rank": median_rank(listed),
            "mean_reciprocal_rank": mean_reciprocal_rank(found),
        }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The scores of all pairs at one step.

    ``stage`` is the 0-based stage during or after which the space was evaluated (``final``: after),
    ``step`` counts optimiser steps over all stages, ``split`` is ``validation`` or ``test``.
    ``pairs`` has every pair whose modalities have both arrived and that items have both of.
    """

    stage: int
    step: int
    final: bool
    split: str
    pairs: tuple[PairRanks, ...]


@dataclass(frozen=True, slots=True)
class Gallery:
    """Embeddings of one evaluation; an observer must copy those that it keeps."""

    embeddings: dict[str, Tensor]  # modality -> (n_m, D) float32, on the device
    rows: dict[str, Tensor]  # modality -> (n_m,) dataset rows, ascending
    # Pair -> modality -> (n_m, D), where the pair has a tower of its own for it.
    own: dict[Pair, dict[str, Tensor]] = field(default_factory=dict)
    # Modality -> what its embeddings are multiplied by beside others in one index, where that
    # is not 1.
    factors: Mapping[str, float] = field(default_factory=dict)
    # Names of modalities -> what the space fuses of them, of the items that have any of them; none
    # of a space whose modalities do not meet.
    together: Mapping[Side, Together] = field(default_factory=dict)

    def of_pair(self, pair: Pair) -> dict[str, Tensor]:
        """Modality -> (n_m, D) embeddings that the pair is scored with."""
        return {**self.embeddings, **self.own.get(pair, {})}


class Gathering:
    """Collects blocks of embedded items into a :class:`Gallery`.

    ``sides`` are modalities that are wanted together, where the space fuses them.
    """

    def __init__(self, sides: Iterable[Side] = ()) -> None:
        self._sides = tuple(sides)
        self._together: dict[Side, list[Together]] = {}
        self._embeddings: dict[str, list[Tensor]] = {}
        self._rows: dict[str, list[Tensor]] = {}
        self._own: dict[tuple[Pair, str], list[Tensor]] = {}

    def add(self, space: JointSpace, batch: Batch, embedded: Views) -> None:
        """Add a block."""
        for name, part in embedded.items():
            self._embeddings.setdefault(name, []).append(space.vectors(name, part))
            self._rows.setdefault(name, []).append(batch.index[batch.rows[name]])
        for pair, own in embedded.own.items():
            for name, part in own.items():
                self._own.setdefault((pair, name), []).append(part.embedding)
        for side in self._sides if space.fuses else ():
            rows = torch.stack([batch.present(name) for name in side]).any(0).nonzero().squeeze(1)
            if rows.shape[0]:
                places = {name: batch.positions(name, rows) for name in side if name in embedded}
                vectors = space.combined(side, embedded, places)
                self._together.setdefault(side, []).append(Together(batch.index[rows], vectors))

    def gallery(self, learner: "Learner", split: str) -> Gallery:
        """The blocks concatenated; a NotFiniteError if an embedding is not finite."""
        own: dict[Pair, dict[str, Tensor]] = {}
        for (pair, name), parts in self._own.items():
            own.setdefault(pair, {})[name] = torch.cat(parts)
        embeddings = {name: torch.cat(parts) for name, parts in self._embeddings.items()}
        for of in (embeddings, *own.values()):
            for name, values in of.items():
                if not bool(values.isfinite().all()):
                    what = f"an embedding of the {split} items"
                    raise NotFiniteError(
                        learner.stage,
                        learner.step,
                        what,
                        (name,),
                        training=learner.training,
                        space=learner.space,
                    )
        rows = {name: torch.cat(parts) for name, parts in self._rows.items()}
        together = {
            side: Together(
                torch.cat([each.rows for each in parts]),
                torch.cat([each.embedding for each in parts]),
            )
            for side, parts in self._together.items()
        }
        return Gallery(embeddings, rows, own, learner.space.factors, together)


Observer = Callable[[Evaluation, Gallery], None]
"""Called with each evaluation; it must change nothing."""


def score_pair(
    pair: Pair,
    embeddings: dict[str, Tensor],
    rows: dict[str, Tensor],
    relevance: Relevance = OWN,
    *,
    listing_ties: bool = False,
) -> PairRanks:
    """Rank both directions of a pair over the items that have both modalities.

    ``embeddings`` are (n_m, D) and ``rows`` (n_m,) ascending dataset rows, by modality. With
    ``listing_ties`` recalls count ties as the published evaluation does, in which a query is
    answered by its own partner only.
    """
    shared = rows[pair.first][torch.isin(rows[pair.first], rows[pair.second])]
    items, names = shared.numpy(), (pair.first, pair.second)
    matching = relevance.matching(names[:1], names[1:], items, items)
    places = (matching.first, matching.second)
    first, second = (
        embeddings[name][torch.searchsorted(rows[name], shared[some]).to(embeddings[name].device)]
        for name, some in zip(names, places, strict=True)
    )

    def block(some: slice, others: slice) -> Tensor:
        return first[some] @ second[others].T

    ways: tuple[Literal["rows", "columns"], ...] = ("rows", "columns")
    questions = [Question(matching.right(first.device), way) for way in ways]
    if listing_ties:
        own = OWN.matching(names[:1], names[1:], items, items).right(first.device)
        questions += [Question(own, way) for way in ways]
    found = counted(block, (len(first), len(second)), questions)
    ranks = [np.full(len(items), np.nan) for _ in ways]
    for each, some, one in zip(ranks, places, found, strict=False):
        each[some] = _plain(one.ranks())
    sizes = dict(zip(pair.directions, map(len, reversed(places)), strict=True))
    repeated = min(sizes.values()) < len(items)
    return PairRanks(
        pair,
        items,
        dict(zip(pair.directions, ranks, strict=True)),
        dict(zip(pair.directions, matching.chances, strict=True)),
        dict(zip(pair.directions, (_plain(one.listed()) for one in found[2:]), strict=False)),
        sizes if repeated else {},
        relevance.recordings(names, items) if repeated else None,
    )


def _plain(values: Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = values.double().cpu().numpy()
    return found


class RetrievalMetric(PluginMetric[None]):
    """Avalanche's view of :func:`score_pair`: gathers embeddings, then publishes the recalls."""

    def __init__(self, relevance: Relevance, observers: Sequence[Observer] = ()) -> None:
        super().__init__()
        self._relevance = relevance
        self._observers = tuple(observers)
        self._gathering = Gathering()

    def reset(self) -> None:
        """Drop the embeddings collected so far."""
        self._gathering = Gathering()

    def result(self) -> None:
        """Nothing: the gallery is incomplete until the end."""

    def before_eval_exp(self, strategy: "Learner") -> None:
        """Start a new gallery."""
        self.reset()

    def after_eval_iteration(self, strategy: "Learner") -> None:
        """Add a block to the gallery."""
        self._gathering.add(strategy.space, strategy.batch, strategy.embedded)

    def after_eval_exp(self, strategy: "Learner") -> list[MetricValue]:
        """Score the pairs."""
        gallery = self._gathering.gallery(strategy, strategy.split)
        listing = "ties_listed_each" in strategy.space.settings.bugs
        ranked = (
            score_pair(
                pair, gallery.of_pair(pair), gallery.rows, self._relevance, listing_ties=listing
            )
            for pair in all_pairs(tuple(gallery.embeddings))
        )
        evaluation = Evaluation(
            stage=strategy.stage,
            step=strategy.clock.train_iterations,
            final=not strategy.inside_stage,
            split=strategy.split,
            pairs=tuple(found for found in ranked if len(found.rows)),
        )
        for observer in self._observers:
            observer(evaluation, gallery)
        self.reset()
        return list(self._published(evaluation))

    def _published(self, evaluation: Evaluation) -> Iterable[MetricValue]:
        for found in evaluation.pairs:
            for query, gallery in found.pair.directions:
                for name, value in found.scores((query, gallery)).items():
                    tag = f"{evaluation.split}/{name}/{found.pair}/{query} to {gallery}"
                    yield MetricValue(self, tag, float(value), evaluation.step)

    def __str__(self) -> str:
        return "retrieval"


class _Silent(BaseLogger):
    """Keeps Avalanche from warning that nothing is logged."""

    def log_single_metric(self, name: str, value: Any, x_plot: int) -> None:
        """Log nothing."""


def evaluator(
    *observers: Observer,
    relevance: Relevance = OWN,
    metrics: Sequence[PluginMetric[Any]] = (),
    loggers: Sequence[BaseLogger] = (),
) -> EvaluationPlugin:
    """Avalanche's evaluation plugin with the retrieval metric in it.

    ``observers`` are called with each evaluation, in this order; without ``relevance`` an item
    answers only itself; ``metrics`` are measured besides.
    """
    retrieval = RetrievalMetric(relevance, observers)
    return EvaluationPlugin(retrieval, *metrics, loggers=[*loggers, _Silent()])
