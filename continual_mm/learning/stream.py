"""Scenario + dataset -> Avalanche experiences: what each stage trains on, and the test items."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from avalanche.benchmarks import CLScenario, EagerCLStream
from avalanche.benchmarks.scenarios.dataset_scenario import DatasetExperience
from avalanche.benchmarks.utils import AvalancheDataset
from torch import Tensor

from continual_mm.arrivals import Arrival
from continual_mm.data.batch import Batch, join
from continual_mm.data.dataset import Dataset, Split
from continual_mm.data.items import Items, Share
from continual_mm.definitions import Scenario, Training
from continual_mm.dice import seed_for
from continual_mm.modality import Modality, Pair

SPLITS = {Split.VALIDATION: "validation", Split.TEST: "test"}


class StageExperience(DatasetExperience[AvalancheDataset[Batch]]):
    """One stage as Avalanche sees it.

    It has no task labels on purpose: with them Avalanche would pick a loader for classes.

    Attributes:
        stage: 0-based stage at whose end the scores belong.
        items: The items, for loading whole blocks.
        added: Modalities that the space welcomes before training.
        pairs: Stage of a row -> pairs that the row trains.
        training: Optimisation settings.
        rows_per_step: Rows of each share in a batch.
    """

    def __init__(
        self,
        *,
        stage: int,
        items: Items,
        added: tuple[Modality, ...],
        pairs: dict[int, tuple[Pair, ...]],
        training: Training,
        rows_per_step: tuple[int, ...],
    ) -> None:
        super().__init__(dataset=AvalancheDataset([items], collate_fn=join))
        self.stage = stage
        self.items = items
        self.added = added
        self.pairs = pairs
        self.training = training
        self.rows_per_step = rows_per_step


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The streams of a scenario on a dataset.

    Attributes:
        train: One experience per stage; a single one for joint training.
        validation: One experience with all validation items.
        test: One experience with all test items: a fixed gallery.
        scenario: The same as Avalanche holds it.
    """

    train: EagerCLStream[StageExperience]
    validation: EagerCLStream[StageExperience]
    test: EagerCLStream[StageExperience]
    scenario: CLScenario[EagerCLStream[StageExperience]]


def benchmark(
    scenario: Scenario,
    arrivals: Sequence[Arrival],
    dataset: Dataset,
    *,
    seed: int,
    joint: bool = False,
) -> Benchmark:
    """Build the streams.

    Args:
        scenario: The definition.
        arrivals: The definition worked out on the dataset.
        dataset: The items.
        seed: Draws the stages' shares when ``items = "split"``.
        joint: One experience that trains what all stages train, in the same number of steps; of
            each stage it sees as many rows in all as the stage itself would.
    """
    shares = tuple(
        Share(arrival.stage, rows, arrival.seen)
        for arrival, rows in zip(
            arrivals, _shares(scenario, len(arrivals), dataset, seed), strict=True
        )
    )
    if joint:
        stages = [_joint(scenario, arrivals, shares, dataset)]
    else:
        stages = [
            StageExperience(
                stage=arrival.stage,
                items=Items(dataset, (share,)),
                added=arrival.added,
                pairs={arrival.stage: arrival.trained},
                training=arrival.training,
                rows_per_step=(arrival.training.batch_size,),
            )
            for arrival, share in zip(arrivals, shares, strict=True)
        ]
    train = EagerCLStream("train", stages)
    held_out = {
        split: EagerCLStream(name, [_held_out(arrivals, dataset, split)])
        for split, name in SPLITS.items()
    }
    whole = CLScenario([train, *held_out.values()])
    for stream in (train, *held_out.values()):
        stream.benchmark = whole
    return Benchmark(train, held_out[Split.VALIDATION], held_out[Split.TEST], whole)


def _shares(scenario: Scenario, stages: int, dataset: Dataset, seed: int) -> Sequence[Tensor]:
    rows = torch.from_numpy(dataset.rows_of(Split.TRAIN))
    if scenario.items == "shared":
        return [rows] * stages
    dice = torch.Generator().manual_seed(seed_for(seed, "shares"))
    mixed = rows[torch.randperm(rows.shape[0], generator=dice)]
    return [share.sort().values for share in mixed.tensor_split(stages)]


def _joint(
    scenario: Scenario, arrivals: Sequence[Arrival], shares: tuple[Share, ...], dataset: Dataset
) -> StageExperience:
    """Everything at once: the stages' pairs, their steps together, their rows in proportion.

    A stage of no steps, of towers that arrive trained, has as many rows as one of the usual length.
    """
    steps = sum(arrival.training.steps for arrival in arrivals)
    lengths = [arrival.training.steps or scenario.training.steps for arrival in arrivals]
    training = scenario.training.model_copy(update={"steps": steps})
    return StageExperience(
        stage=arrivals[-1].stage,
        items=Items(dataset, shares),
        added=arrivals[-1].available,
        pairs={arrival.stage: arrival.trained for arrival in arrivals},
        training=training,
        rows_per_step=tuple(
            max(2, round(arrival.training.batch_size * length / sum(lengths)))
            for arrival, length in zip(arrivals, lengths, strict=True)
        ),
    )


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
