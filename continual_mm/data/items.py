"""Items of a dataset as PyTorch sees them: single rows for a loader, whole blocks for speed."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from continual_mm.data.batch import Batch, join, padded
from continual_mm.data.dataset import Dataset


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """The items that one stage sees.

    Attributes:
        stage: 0-based stage, whose pairs the items train.
        rows: (n,) rows of the dataset.
        modalities: What the stage shows of them.
    """

    stage: int
    rows: Tensor
    modalities: tuple[str, ...]


class Items(TorchDataset[Batch]):
    """The shares of one or more stages, one after the other.

    An element is a :class:`Batch` of one row, so that any loader's collate is ``join``;
    :meth:`block` fetches many rows with one gather per modality.

    Args:
        dataset: Where they are.
        shares: The stages' shares.
        clips: Items of one group that a batch shows side by side, where the dataset has groups.
        replace: Whether they are drawn with replacement.
        filled: Whether a batch is as long as the dataset says of a modality, with zeros behind each
            item; else as long as its longest item.
    """

    def __init__(
        self,
        dataset: Dataset,
        shares: tuple[Share, ...],
        *,
        clips: int = 1,
        replace: bool = False,
        filled: bool = False,
    ) -> None:
        self.dataset = dataset
        self.shares = shares
        self.clips = clips
        self.replace = replace
        self.filled = filled
        self._present = {
            name: torch.from_numpy(column.present) for name, column in dataset.columns.items()
        }

    def __len__(self) -> int:
        return sum(share.rows.shape[0] for share in self.shares)

    def __getitem__(self, position: int) -> Batch:
        if not 0 <= position < len(self):
            raise IndexError(f"item {position} of {len(self)}")
        for share in self.shares:
            if position < share.rows.shape[0]:
                return self._fetch(share, share.rows[position : position + 1])
            position -= share.rows.shape[0]
        raise IndexError(f"item {position} of {len(self)}")

    def block(self, chosen: tuple[Tensor, ...]) -> Batch:
        """Rows of every share at once; ``chosen`` holds positions within each share."""
        return join(
            self._fetch(share, share.rows[positions])
            for share, positions in zip(self.shares, chosen, strict=True)
        )

    def _fetch(self, share: Share, rows: Tensor) -> Batch:
        features, lengths, where = {}, {}, {}
        for name in share.modalities:
            kept = self._present[name][rows].nonzero().squeeze(1)
            if not kept.shape[0]:
                continue
            where[name] = kept
            column = self.dataset.columns[name]
            features[name], length = column.take(rows[kept])
            if length is not None:
                lengths[name] = length
                if self.filled:
                    features[name] = padded(features[name], column.modality.shape[0])
        stage = torch.full(rows.shape, share.stage, dtype=torch.long)
        return Batch(features, lengths, where, rows, stage)
