"""Held-out items embedded in a space alone, without a learner, and pairs scored on them."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from continual_mm.data.batch import Batch, Items, Share
from continual_mm.data.dataset import Dataset, Split
from continual_mm.evaluation.pairs import Gallery
from continual_mm.learning.learner import EVALUATION_ROWS
from continual_mm.learning.loader import BlockLoader
from continual_mm.space.space import JointSpace

SCORED = {"validation": Split.VALIDATION, "test": Split.TEST}

MOST = 16384  # training items that are looked at, at most


def training_items(data: Dataset, names: Iterable[str]) -> Iterator[Batch]:
    """Training items with some modalities."""
    rows = torch.from_numpy(data.rows_of(Split.TRAIN))[:MOST]
    known = tuple(name for name in names if name in data.card.names)
    yield from BlockLoader(Items(data, (Share(0, rows, known),)), rows=EVALUATION_ROWS)


@torch.no_grad()
def gallery_of(space: JointSpace, data: Dataset, split: Split) -> Gallery:
    """The vectors of all items of a split, on the CPU; the space is taken as it is."""
    names = tuple(m.name for m in space.modalities if m.name in data.card.names)
    items = Items(data, (Share(0, torch.from_numpy(data.rows_of(split)), names),))
    vectors: dict[str, list[Tensor]] = {name: [] for name in names}
    rows: dict[str, list[Tensor]] = {name: [] for name in names}
    for block in BlockLoader(items, rows=EVALUATION_ROWS):
        batch = block.to(space.log_scale.device)
        for name, found in space(batch.features, batch.lengths).items():
            vectors[name].append(space.vectors(name, found).cpu())
            rows[name].append(batch.index[batch.rows[name]].cpu())
    return Gallery(
        {name: torch.cat(each) for name, each in vectors.items() if each},
        {name: torch.cat(each) for name, each in rows.items() if each},
        factors=space.factors,
    )
