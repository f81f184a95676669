"""Scenario + dataset -> Avalanche experiences: what each stage trains on, and the test items."""

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import proxy

import torch
from torch import Tensor

from continual_mm.data.batch import Batch, Items, Share, join
from continual_mm.data.dataset import Dataset, Split
from continual_mm.definitions.arrivals import Arrival
from continual_mm.definitions.modality import Modality, Pair
from continual_mm.definitions.scenario import Scenario, Training
from continual_mm.learning.avalanche import (
    AvalancheDataset,
    CLScenario,
    DatasetExperience,
    EagerCLStream,
)
from continual_mm.system.seeds import seed_for

SPLITS = {Split.VALIDATION: "validation", Split.TEST: "test"}


@dataclass(kw_only=True, eq=False, repr=False)
class StageExperience(DatasetExperience[AvalancheDataset[Batch]]):
    """One stage, 0-based, as Avalanche sees it.

    It has no task labels on purpose: with them Avalanche would pick a loader for classes. ``added``
    are modalities that are added to the space before training, ``pairs`` is stage of a row -> pairs
    that the row trains, ``rows_per_step`` has the rows of each share in a batch.
    """

    stage: int
    items: Items
    added: tuple[Modality, ...]
    pairs: dict[int, tuple[Pair, ...]]
    training: Training
    rows_per_step: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__init__(dataset=AvalancheDataset([self.items], collate_fn=join))


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The streams of a scenario: an experience per stage (one if joint), one for held-out items.

    ``scored`` are the streams that the space is evaluated on, ``validation`` the first of them.
    """

    train: EagerCLStream[StageExperience]
    scored: tuple[EagerCLStream[StageExperience], ...]
    scenario: CLScenario[EagerCLStream[StageExperience]]

    @property
    def validation(self) -> EagerCLStream[StageExperience]:
        """The items by which numbers are chosen."""
        return self.scored[0]


def benchmark(
    scenario: Scenario,
    arrivals: Sequence[Arrival],
    dataset: Dataset,
    *,
    seed: int,
    joint: bool = False,
    cumulative: bool = False,
    split: str = "test",
) -> Benchmark:
    """Build the streams; ``seed`` draws the stages' shares when ``items = "split"``.

    Besides validation items those of ``split`` are scored, the one that results are of.

    ``joint``: one experience trains what all stages train, in the same number of steps; of each
    stage it sees as many rows in all as the stage itself would. ``cumulative``: each stage trains
    its items and those of all stages before it, see :func:`divided`.
    """
    drawn = _shares(scenario, arrivals, dataset, seed)
    shares = tuple(
        Share(arrival.stage, rows, arrival.seen)
        for arrival, rows in zip(arrivals, drawn, strict=True)
    )
    if joint:
        stages = [_joint(scenario, arrivals, _items(scenario, dataset, shares))]
    else:
        met = [slice(0 if cumulative else end - 1, end) for end in range(1, len(arrivals) + 1)]
        stages = [_stage(arrivals[part], _items(scenario, dataset, shares[part])) for part in met]
    train = EagerCLStream("train", stages)
    scored = tuple(
        EagerCLStream(name, [_held_out(arrivals, dataset, which)])
        for which, name in scored_splits(split).items()
    )
    whole = CLScenario([train, *scored])
    for stream in (train, *scored):
        # References in a ring would keep the data until Python looks for rings, which is rarely.
        stream.benchmark, stream.exps_iter = proxy(whole), proxy(stream)
        for experience in stream:
            experience.origin_stream = proxy(stream)
    return Benchmark(train, scored, whole)


def scored_splits(split: str) -> dict[Split, str]:
    """The splits that are scored where results are of one: it, and validation before it."""
    return {which: name for which, name in SPLITS.items() if name in ("validation", split)}


def _shares(
    scenario: Scenario, arrivals: Sequence[Arrival], dataset: Dataset, seed: int
) -> Sequence[Tensor]:
    """The rows of each stage, of the dataset that it is trained on."""
    found: dict[int, Tensor] = {}
    for name in dict.fromkeys(arrival.dataset for arrival in arrivals):
        some = [arrival for arrival in arrivals if arrival.dataset == name]
        rows = torch.from_numpy(dataset.rows_of(Split.TRAIN, name))
        drawn = _drawn(scenario, some, rows, dataset, seed)
        found |= {arrival.stage: share for arrival, share in zip(some, drawn, strict=True)}
    return [found[arrival.stage] for arrival in arrivals]


def _drawn(
    scenario: Scenario, arrivals: Sequence[Arrival], rows: Tensor, dataset: Dataset, seed: int
) -> Sequence[Tensor]:
    stages = len(arrivals)
    if scenario.items == "shared":
        return [rows] * stages
    if scenario.items == "paired":
        return [_with_a_pair(arrival, rows, dataset) for arrival in arrivals]
    generator = torch.Generator().manual_seed(seed_for(seed, "shares"))
    # Where clips of a group are shown together, groups are dealt out and stay whole.
    if scenario.space.clips > 1 and dataset.group is not None:
        names, number = torch.unique(torch.from_numpy(dataset.group)[rows], return_inverse=True)
        stage = _dealt(names.shape[0], stages, generator)[number]
    else:
        stage = _dealt(rows.shape[0], stages, generator)
    return [rows[stage == each] for each in range(stages)]


def _with_a_pair(arrival: Arrival, rows: Tensor, dataset: Dataset) -> Tensor:
    """The rows that have both modalities of a pair of the stage; all where it has none of them."""
    present = {name: torch.from_numpy(dataset.columns[name].present)[rows] for name in arrival.seen}
    pairs = [present[pair.first] & present[pair.second] for pair in arrival.trained]
    found = rows[torch.stack(pairs).any(0)] if pairs else rows
    return found if len(found) else rows


def pair_items(streams: Benchmark) -> dict[int, dict[Pair, int]]:
    """0-based stage -> pair that it trains -> its training items that have both modalities."""
    found: dict[int, dict[Pair, int]] = {}
    for experience in streams.train:
        for share in experience.items.shares:
            columns = experience.items.dataset.columns
            present = {name: columns[name].present[share.rows.numpy()] for name in share.modalities}
            found[share.stage] = {
                pair: int((present[pair.first] & present[pair.second]).sum())
                for pair in experience.pairs[share.stage]
            }
    return found


def _dealt(count: int, stages: int, generator: torch.Generator) -> Tensor:
    """(count,) a 0-based stage each, drawn in equal shares; two bytes, for there may be many."""
    found = torch.empty(count, dtype=torch.int16)
    for stage, share in enumerate(torch.randperm(count, generator=generator).tensor_split(stages)):
        found[share] = stage
    return found


def _items(scenario: Scenario, dataset: Dataset, shares: tuple[Share, ...]) -> Items:
    """What a stage trains on, clip by clip or some clips of every group."""
    space = scenario.space
    return Items(
        dataset, shares, clips=space.clips, replace=space.reference, marked=not space.reference
    )


def _joint(scenario: Scenario, arrivals: Sequence[Arrival], items: Items) -> StageExperience:
    """Everything at once: the stages' pairs, their steps together, their rows in proportion.

    A stage of no steps, of towers that arrive trained, has as many rows as a usual one.
    """
    steps = sum(arrival.training.steps for arrival in arrivals)
    lengths = [arrival.training.steps or scenario.training.steps for arrival in arrivals]
    training = scenario.training.model_copy(update={"steps": steps})
    return StageExperience(
        stage=arrivals[-1].stage,
        items=items,
        added=arrivals[-1].available,
        pairs={arrival.stage: arrival.trained for arrival in arrivals},
        training=training,
        rows_per_step=tuple(
            max(2, round(arrival.training.batch_size * length / sum(lengths)))
            for arrival, length in zip(arrivals, lengths, strict=True)
        ),
    )


def _stage(arrivals: Sequence[Arrival], items: Items) -> StageExperience:
    """The last of some stages, on the items of all, each with the pairs of its own stage."""
    last = arrivals[-1]
    counts = [share.rows.shape[0] for share in items.shares]
    return StageExperience(
        stage=last.stage,
        items=items,
        added=last.added,
        pairs={arrival.stage: arrival.trained for arrival in arrivals},
        training=last.training,
        rows_per_step=divided(last.training.batch_size, counts),
    )


def divided(rows: int, items: Sequence[int]) -> tuple[int, ...]:
    """Rows of a batch for each of some shares, in proportion to their items.

    So every item is met equally often, as if all shares were one. What does not divide goes where
    most is lacking, to the later share among equal ones. Each share has 2 rows at least, since one
    alone has no negatives; only where that is more than the batch holds is the batch larger.

    >>> divided(16, [40, 40, 40]), divided(16, [300, 10]), divided(2, [5, 5])
    ((5, 5, 6), (14, 2), (2, 2))
    """
    parts = [rows * count / max(sum(items), 1) for count in items]
    given = [2] * len(items)
    while sum(given) < rows:
        place = max(range(len(items)), key=lambda share: (parts[share] - given[share], share))
        given[place] += 1
    return tuple(given)


def _held_out(arrivals: Sequence[Arrival], dataset: Dataset, split: Split) -> StageExperience:
    rows = torch.from_numpy(dataset.rows_of(split))
    names = tuple(modality.name for modality in arrivals[-1].available)
    return StageExperience(
        stage=arrivals[-1].stage,
        items=Items(dataset, (Share(arrivals[-1].stage, rows, names),)),
        added=(),
        pairs={},
        training=arrivals[-1].training,
        rows_per_step=(arrivals[-1].training.batch_size,),
    )
