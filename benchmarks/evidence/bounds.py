"""Make a bound of its trained members: their vectors side by side, scored as those of any run."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from plan import Bound
from torch import Tensor

from continual_mm.data import registry as datasets
from continual_mm.data.batch import Items, Share
from continual_mm.data.dataset import Dataset, Split
from continual_mm.definitions.arrivals import births
from continual_mm.evaluation.indexes import Indexes
from continual_mm.evaluation.pairs import Evaluation, Gallery, score_pair
from continual_mm.evaluation.relevance import Relevance
from continual_mm.learning.learner import EVALUATION_ROWS
from continual_mm.learning.loader import BlockLoader
from continual_mm.learning.stream import SPLITS
from continual_mm.runs import records
from continual_mm.runs.folder import COST, RunFolder
from continual_mm.runs.history import History, scores_of
from continual_mm.runs.run import open_run
from continual_mm.space.space import JointSpace
from continual_mm.system.files import write_json


def combine(bound: Bound, members: Sequence[Path], folder: Path) -> None:
    """Score the members of a bound together, into a folder like that of any finished run.

    Args:
        bound: What is made.
        members: Folders of the finished members, in the order of ``bound.members``.
        folder: Of the bound.
    """
    scenario, last = bound.scenario, len(bound.arrivals) - 1
    dataset = datasets.load(
        scenario.dataset, folder=Path(scenario.folder), standardise=scenario.standardise
    )
    spaces = [open_run(path).eval() for path in members]
    costs = [records.read(records.Cost, path / COST) for path in members]
    history = History(arrivals=bound.arrivals, space=spaces[0])
    relevance = Relevance(dataset, positives=scenario.positives)
    indexes = Indexes(history.indexes.append, relevance)
    evaluations = []
    for split, name in SPLITS.items():
        gallery = gallery_of(spaces, dataset, split)
        found = Evaluation(
            stage=last,
            step=sum(cost.steps or 0 for cost in costs),
            final=True,
            split=name,
            pairs=tuple(
                score_pair(pair, gallery.embeddings, gallery.rows, relevance)
                for pair in births(bound.arrivals)
            ),
        )
        evaluations.append(found)
        history.scores += scores_of(found)
        indexes(found, gallery)
    run = RunFolder(folder)
    with run.claimed(bound.identity):
        run.write_ranks(last + 1, evaluations)
        run.write_scores(history, bound.identity)
        size = sum(space.size for space in spaces)
        write_json(folder / COST, {**dict(_cost(costs)), "vector_size": size})


def _cost(costs: Sequence[records.Cost]) -> Iterator[tuple[str, float]]:
    """Sums over the members, a step of which is one of each."""
    for key in ("seconds", "steps", "memory_items", "memory_bytes", "step_seconds"):
        found = [getattr(cost, key) for cost in costs]
        if None not in found:
            yield key, sum(found)


@torch.no_grad()
def gallery_of(spaces: Sequence[JointSpace], dataset: Dataset, split: Split) -> Gallery:
    """The items of a split, by the vectors of all spaces one behind the other."""
    names = tuple(modality.name for modality in spaces[0].modalities)
    share = Share(0, torch.from_numpy(dataset.rows_of(split)), names)
    vectors: dict[str, list[Tensor]] = {name: [] for name in names}
    rows: dict[str, list[Tensor]] = {name: [] for name in names}
    for batch in BlockLoader(Items(dataset, (share,)), rows=EVALUATION_ROWS):
        found = [space(batch.features, batch.lengths) for space in spaces]
        for name in batch.rows:
            parts = [s.vectors(name, each[name]) for s, each in zip(spaces, found, strict=True)]
            vectors[name].append(torch.cat(parts, dim=1))
            rows[name].append(batch.index[batch.rows[name]])
    return Gallery(
        {name: torch.cat(parts) for name, parts in vectors.items()},
        {name: torch.cat(parts) for name, parts in rows.items()},
    )
