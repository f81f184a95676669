"""Pairs that nothing could be said about, found out before anything is trained."""

from collections.abc import Iterator, Sequence

import numpy as np

from continual_mm.arrivals import Arrival, births
from continual_mm.complaint import Complaint
from continual_mm.data.dataset import Dataset, Split

_SCORED = {Split.VALIDATION: "validation", Split.TEST: "test"}


def unscored(dataset: Dataset, arrivals: Sequence[Arrival]) -> Iterator[Complaint]:
    """A complaint for each pair of which no item that is scored has both modalities.

    Args:
        dataset: The items.
        arrivals: The stages; every pair whose modalities arrive is scored, trained or not.
    """
    for split, name in _SCORED.items():
        rows = dataset.rows_of(split)
        present = {
            modality.name: dataset.columns[modality.name].present[rows]
            for modality in arrivals[-1].available
        }
        for pair in births(arrivals):
            if not np.any(present[pair.first] & present[pair.second]):
                yield Complaint(
                    f"dataset '{dataset.card.name}'",
                    f"no {name} item has both {pair.first} and {pair.second}",
                    f"give {name} items with both, or leave one of them out of the scenario",
                )
