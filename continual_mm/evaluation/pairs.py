"""Score every pair seen so far on a fixed gallery."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from continual_mm.data.batch import Batch
from continual_mm.data.columns import Texts, blocks, digests
from continual_mm.data.dataset import Dataset
from continual_mm.data.schema import with_own_groups
from continual_mm.definitions.modality import Pair, all_pairs
from continual_mm.learning.avalanche import BaseLogger, EvaluationPlugin, MetricValue, PluginMetric
from continual_mm.learning.growth import Views
from continual_mm.learning.guard import NotFiniteError
from continual_mm.metrics.ranking import Question, counted, same
from continual_mm.metrics.retrieval import mean_reciprocal_rank, median_rank, recall_at
from continual_mm.space.space import JointSpace

if TYPE_CHECKING:
    from continual_mm.learning.learner import Learner


RECALLS = (1, 5, 10)
Direction = tuple[str, str]  # (query modality, gallery modality)
QueryGroups = Callable[[str, NDArray[np.int64]], NDArray[np.int64] | None]
"""(query modality, dataset rows) -> numbers equal for rows that answer one another, or None."""


@dataclass(frozen=True, slots=True)
class PairRanks:
    """The ranks of one pair, query by query."""

    pair: Pair
    # (n,) dataset rows that have both modalities: queries and gallery of both directions.
    rows: NDArray[np.int64]
    # Direction -> (n,) 0-based rank of each query's right answer.
    ranks: dict[Direction, NDArray[np.float64]]
    chance: dict[Direction, float]  # direction -> recall at 1 of a random order
    # Direction -> the ranks that count instead, several for a query with ties; only with the
    # published mistake `ties_listed_each`.
    listed: dict[Direction, NDArray[np.float64]] = field(default_factory=dict)

    def scores(self, direction: Direction) -> dict[str, float]:
        """Recalls as fractions, the median rank (1-based) and the mean reciprocal rank."""
        found = self.ranks[direction]
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

    def of_pair(self, pair: Pair) -> dict[str, Tensor]:
        """Modality -> (n_m, D) embeddings that the pair is scored with."""
        return {**self.embeddings, **self.own.get(pair, {})}


class Gathering:
    """Collects blocks of embedded items into a :class:`Gallery`."""

    def __init__(self) -> None:
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
                    raise NotFiniteError(learner.stage, learner.step, what, (name,))
        rows = {name: torch.cat(parts) for name, parts in self._rows.items()}
        return Gallery(embeddings, rows, own, learner.space.factors)


Observer = Callable[[Evaluation, Gallery], None]
"""Called with each evaluation; it must change nothing."""


def score_pair(
    pair: Pair,
    embeddings: dict[str, Tensor],
    rows: dict[str, Tensor],
    groups: QueryGroups,
    *,
    listing_ties: bool = False,
) -> PairRanks:
    """Rank both directions of a pair over the items that have both modalities.

    ``embeddings`` are (n_m, D) and ``rows`` (n_m,) ascending dataset rows, by modality. With
    ``listing_ties`` recalls count ties as the published evaluation does, in which a query is
    answered by its own partner only.
    """
    shared = rows[pair.first][torch.isin(rows[pair.first], rows[pair.second])]
    sides = {
        name: embeddings[name][torch.searchsorted(rows[name], shared).to(embeddings[name].device)]
        for name in (pair.first, pair.second)
    }
    first, second = sides[pair.first], sides[pair.second]

    def block(some: slice, others: slice) -> Tensor:
        return first[some] @ second[others].T

    items = shared.numpy()
    each = torch.arange(len(items))
    numbers = {direction: _numbers(groups, direction[0], items) for direction in pair.directions}
    ways: list[Literal["rows", "columns"]] = ["rows", "columns"]
    questions = [
        Question(same(number, number, first.device), way)
        for number, way in zip(numbers.values(), ways, strict=True)
    ]
    if listing_ties:
        questions += [Question(same(each, each, first.device), way) for way in ways]
    found = counted(block, (len(items), len(items)), questions)
    listed = [_plain(one.listed()) for one in found[len(ways) :]]
    return PairRanks(
        pair,
        items,
        {way: _plain(one.ranks()) for way, one in zip(pair.directions, found, strict=False)},
        {way: _right_answers(number) / max(len(items), 1) for way, number in numbers.items()},
        dict(zip(pair.directions, listed, strict=False)),
    )


def _numbers(groups: QueryGroups, query: str, rows: NDArray[np.int64]) -> Tensor:
    found = groups(query, rows)
    return torch.arange(len(rows)) if found is None else torch.from_numpy(found)


def _right_answers(number: Tensor) -> float:
    """How many right answers a query has on average, where equal numbers answer one another."""
    _, which, counts = torch.unique(number, return_inverse=True, return_counts=True)
    return float(counts[which].double().mean())


def _plain(values: Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = values.double().cpu().numpy()
    return found


class RetrievalMetric(PluginMetric[None]):
    """Avalanche's view of :func:`score_pair`: gathers embeddings, then publishes the recalls."""

    def __init__(self, groups: QueryGroups, observers: Sequence[Observer] = ()) -> None:
        super().__init__()
        self._groups = groups
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
                pair, gallery.of_pair(pair), gallery.rows, self._groups, listing_ties=listing
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
    groups: QueryGroups = lambda _query, _rows: None,
    metrics: Sequence[PluginMetric[Any]] = (),
    loggers: Sequence[BaseLogger] = (),
) -> EvaluationPlugin:
    """Avalanche's evaluation plugin with the retrieval metric in it.

    ``observers`` are called with each evaluation, in this order; without ``groups`` an item
    answers only itself; ``metrics`` are measured besides.
    """
    retrieval = RetrievalMetric(groups, observers)
    return EvaluationPlugin(retrieval, *metrics, loggers=[*loggers, _Silent()])


_TEXTS = 256  # captions that are in memory at once
_NO_CAPTION = blake2b(b"", digest_size=16).digest()


def query_groups(
    dataset: Dataset,
    modality: str,
    rows: NDArray[np.int64],
    *,
    positives: Literal["paired", "label", "duplicates"],
) -> NDArray[np.int64] | None:
    """(n,) a number per row, equal for rows that are correct answers of one another.

    ``rows`` are queries and gallery at once. ``paired``: every item answers itself only, and None
    is returned. ``label`` groups by class (a ValueError if there are no labels), ``duplicates`` by
    what the query shows: the caption where the modality is ``text`` and it is known, else the
    features themselves; a row that lacks the label or the modality is alone in its group.
    """
    if positives == "paired":
        return None
    if positives == "label":
        if dataset.label is None:
            raise ValueError(f"dataset '{dataset.card.name}' has no labels")
        return with_own_groups(dataset.label[rows])
    column = dataset.columns[modality]
    known = column.present[rows]
    shown = np.zeros(len(rows), dtype="S16")
    written = np.zeros(len(rows), dtype=np.bool_)
    if modality == "text" and dataset.text is not None:
        captions = np.array(list(_captions(dataset.text, rows)), "S16")
        written = known & (captions != _NO_CAPTION)
        shown[written] = captions[written]
    unwritten = known & ~written
    features = (one for block in blocks(column, rows[unwritten]) for one in digests(*block))
    shown[unwritten] = np.array(list(features), "S16")
    found = len(rows) + np.arange(len(rows), dtype=np.int64)
    found[known] = np.unique(shown[known], return_inverse=True)[1]
    return found


def _captions(texts: Texts, rows: NDArray[np.int64]) -> Iterator[bytes]:
    """16 bytes for each caption; in an array of all, each would be as long as the longest."""
    for start in range(0, len(rows), _TEXTS):
        some = texts[rows[start : start + _TEXTS]].tolist()
        written = (text.encode("utf-8", "surrogatepass") for text in some)
        yield from (blake2b(text, digest_size=16).digest() for text in written)
