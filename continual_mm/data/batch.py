"""A batch that says which of its rows have which modality; no modality is ever dropped."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """N rows of items, each with some of the modalities.

    The features live where the model is; the bookkeeping stays on the CPU, so that choosing rows
    never waits for the device.

    Attributes:
        features: Modality -> (n_m, ...) values of the n_m rows that have it, in row order.
        lengths: Modality -> (n_m,) valid time steps; only for kinds of signal with time.
        rows: Modality -> (n_m,) ascending positions in the batch, on the CPU.
        index: (N,) rows of the dataset, on the CPU.
        stage: (N,) stage whose pairs each row trains, on the CPU.
    """

    features: Mapping[str, Tensor]
    lengths: Mapping[str, Tensor]
    rows: Mapping[str, Tensor]
    index: Tensor
    stage: Tensor

    def __len__(self) -> int:
        return self.index.shape[0]

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that at least one row has."""
        return tuple(self.features)

    @property
    def nbytes(self) -> int:
        """Bytes of everything the batch holds."""
        tensors = (*self.features.values(), *self.lengths.values(), *self.rows.values())
        return sum(tensor.nbytes for tensor in (*tensors, self.index, self.stage))

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """The same batch with its features on a device."""
        return replace(
            self,
            features={k: v.to(device, non_blocking=non_blocking) for k, v in self.features.items()},
            lengths={k: v.to(device, non_blocking=non_blocking) for k, v in self.lengths.items()},
        )

    def pin_memory(self) -> Self:
        """The same batch in page-locked memory, from which transfers need not wait."""
        return replace(
            self,
            features={key: tensor.pin_memory() for key, tensor in self.features.items()},
            lengths={key: tensor.pin_memory() for key, tensor in self.lengths.items()},
        )

    def present(self, modality: str) -> Tensor:
        """(N,) which rows have a modality."""
        mask = torch.zeros(len(self), dtype=torch.bool)
        if modality in self.rows:
            mask[self.rows[modality]] = True
        return mask

    def positions(self, modality: str, chosen: Tensor) -> Tensor:
        """Where the chosen batch rows, all of which have the modality, stand in its features."""
        where = torch.full((len(self),), -1, dtype=torch.long)
        where[self.rows[modality]] = torch.arange(self.rows[modality].shape[0])
        return where[chosen]

    def select(self, chosen: Tensor) -> "Batch":
        """The batch of some rows, in the order given; (n,) positions, repeats allowed."""
        features, lengths, rows = {}, {}, {}
        for name in self.features:
            where = self.positions(name, chosen)
            kept = (where >= 0).nonzero().squeeze(1)
            if not len(kept):
                continue
            source = where[kept].to(self.features[name].device)
            features[name] = self.features[name][source]
            rows[name] = kept
            if name in self.lengths:
                lengths[name] = self.lengths[name][source]
        return Batch(features, lengths, rows, self.index[chosen], self.stage[chosen])


def join(batches: Iterable[Batch]) -> Batch:
    """Rows of several batches in one; rows may differ in their modalities and in their lengths.

    Raises:
        ValueError: If there is no batch at all.
    """
    parts = list(batches)
    if not parts:
        raise ValueError("no batch to join: give at least one")
    if len(parts) == 1:
        return parts[0]
    names = dict.fromkeys(name for part in parts for name in part.features)
    starts = [0]
    for part in parts[:-1]:
        starts.append(starts[-1] + len(part))
    features, lengths, rows = {}, {}, {}
    for name in names:
        having = [
            (part, start)
            for part, start in zip(parts, starts, strict=True)
            if name in part.features
        ]
        tensors = [part.features[name] for part, _ in having]
        rows[name] = torch.cat([part.rows[name] + start for part, start in having])
        if name in having[0][0].lengths:
            lengths[name] = torch.cat([part.lengths[name] for part, _ in having])
            longest = max(tensor.shape[1] for tensor in tensors)
            tensors = [padded(tensor, longest) for tensor in tensors]
        features[name] = torch.cat(tensors)
    index = torch.cat([part.index for part in parts])
    return Batch(features, lengths, rows, index, torch.cat([part.stage for part in parts]))


def padded(features: Tensor, steps: int) -> Tensor:
    """(n, time, ...) with zeros behind the time, up to so many steps; longer ones as they are."""
    if features.shape[1] >= steps:
        return features
    return pad(features, (0, 0) * (features.dim() - 2) + (0, steps - features.shape[1]))
