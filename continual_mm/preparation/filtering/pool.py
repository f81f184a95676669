"""The pairs that a filter judges: training items that have both modalities, a few at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from continual_mm.data.batch import answering, same_rows
from continual_mm.data.dataset import Dataset, Split
from continual_mm.definitions.modality import Modality
from continual_mm.preparation.filtering.scorers import Batch, Scorer, ScorerSettings, Side
from continual_mm.space.encoders import FeatureDropout
from continual_mm.system.errors import InputError, first_few
from continual_mm.system.seeds import seed_for

_MOST_VALUES, _MOST_ITEMS = 1 << 21, 4096  # of a modality that are scored at once


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Pairs of a dataset.

    Attributes:
        dataset: In memory or in a store.
        names: The general modality, then the other.
        rows: (N,) the pairs' items, ascending.
        device: Where batches go.
    """

    dataset: Dataset
    names: tuple[str, str]
    rows: NDArray[np.int64]
    device: torch.device

    @classmethod
    def of(cls, dataset: Dataset, names: tuple[str, str], device: torch.device) -> "Pool":
        """All training items that have both modalities."""
        general, other = (dataset.columns[name].present for name in names)
        training = dataset.split == Split.TRAIN
        return cls(dataset, names, np.flatnonzero(training & general & other), device)

    @property
    def modalities(self) -> tuple[Modality, Modality]:
        """The general one, then the other."""
        general, other = self.names
        return self.dataset.card[general], self.dataset.card[other]

    @property
    def ids(self) -> NDArray[np.str_]:
        """(N,) names of the items."""
        return self.dataset.ids[self.rows]

    def batches(
        self, settings: ScorerSettings, purpose: str
    ) -> Iterator[tuple[Batch, Tensor | None]]:
        """Batches to train on, without end: all pairs in random order, again and again.

        With each comes which of its pairs answer one another, such as captions of one recording;
        None where each only itself.
        """
        seed = seed_for(settings.seed, "filter", purpose)
        generator = torch.Generator().manual_seed(seed)
        dropout = FeatureDropout(settings.feature_dropout, seed=seed)
        size, order, step = min(settings.batch_size, len(self.rows)), np.empty(0, np.int64), 0
        while True:
            if len(order) < size:
                order = self.rows[torch.randperm(len(self.rows), generator=generator).numpy()]
            chosen, order, step = order[:size], order[size:], step + 1
            dropout.set_step(0, step)
            taken = [self._taken(name, chosen) for name in self.names]
            general, other = (
                self._side(name, *each, torch.float32, dropout)
                for name, each in zip(self.names, taken, strict=True)
            )
            yield (general, other), answering(*(same_rows(*each) for each in taken))

    @torch.no_grad()
    def embedded(self, scorer: Scorer) -> tuple[Tensor, Tensor]:
        """(N, D) points of both modalities, in float64, block by block."""
        exact = scorer.double_precision()
        largest = max(prod(modality.shape) for modality in self.modalities)
        height = max(1, min(_MOST_VALUES // largest, _MOST_ITEMS))
        general, other = zip(
            *(
                exact.embed(self._batch(self.rows[start : start + height], torch.float64))
                for start in range(0, len(self.rows), height)
            ),
            strict=True,
        )
        return torch.cat(general), torch.cat(other)

    def _batch(self, rows: NDArray[np.int64], dtype: torch.dtype) -> Batch:
        general, other = (self._side(name, *self._taken(name, rows), dtype) for name in self.names)
        return general, other

    def _taken(self, name: str, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor | None]:
        """Features of some rows, which are finite, and their valid steps."""
        values, lengths = self.dataset.columns[name].take(torch.from_numpy(rows))
        faulty = ~values.flatten(1).isfinite().all(1).numpy()
        if faulty.any():
            ids = [repr(str(one)) for one in self.dataset.ids[rows[faulty]]]
            place = f"{self.dataset.card.name}, column {name!r}"
            problem = f"features are not finite in items {first_few(ids)}"
            raise InputError.at(place, problem, "mend them, or leave the items out")
        return values, lengths

    def _side(
        self,
        name: str,
        values: Tensor,
        lengths: Tensor | None,
        dtype: torch.dtype,
        dropout: FeatureDropout | None = None,
    ) -> Side:
        if dropout is not None:
            values = dropout(name, values, time=lengths is not None)
        steps = None if lengths is None else lengths.to(self.device)
        return values.to(self.device, dtype), steps
