"""A batch that says which of its rows have which modality; no modality is ever dropped."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from math import prod
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset as TorchDataset

from continual_mm.data.columns import digests
from continual_mm.data.dataset import Dataset

_MARKED = 4096  # values of an item, from its beginning, that its mark is made of


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """N rows of items; features lie where the model is, the bookkeeping on the CPU."""

    # Modality -> (n_m, ...) values of the n_m rows that have it, in row order.
    features: Mapping[str, Tensor]
    # Modality -> (n_m,) valid time steps; only for kinds of signal with time.
    lengths: Mapping[str, Tensor]
    rows: Mapping[str, Tensor]  # modality -> (n_m,) ascending positions in the batch, on the CPU
    index: Tensor  # (N,) rows of the dataset, on the CPU
    stage: Tensor  # (N,) stage whose pairs each row trains, on the CPU
    # Modality -> (n_m,) what `marks_of` says of the rows, on the CPU; none where it does not matter
    # which rows are the same.
    marks: Mapping[str, Tensor] = field(default_factory=dict)
    _alike: dict[str, Tensor | None] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return self.index.shape[0]

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that at least one row has."""
        return tuple(self.features)

    @property
    def nbytes(self) -> int:
        """Bytes of everything the batch holds."""
        parts = (self.features, self.lengths, self.rows, self.marks)
        tensors = (tensor for part in parts for tensor in part.values())
        return sum(tensor.nbytes for tensor in (*tensors, self.index, self.stage))

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """The same batch with its features on a device."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """The same batch in page-locked memory, from which transfers need not wait."""
        return self._mapped(Tensor.pin_memory)

    def present(self, modality: str) -> Tensor:
        """(N,) which rows have a modality."""
        mask = torch.zeros(len(self), dtype=torch.bool)
        if modality in self.rows:
            mask[self.rows[modality]] = True
        return mask

    def having(self, modalities: Iterable[str]) -> Tensor:
        """(n,) ascending positions of the rows that have all of some modalities."""
        return torch.stack([self.present(name) for name in modalities]).all(0).nonzero().squeeze(1)

    def positions(self, modality: str, chosen: Tensor) -> Tensor:
        """Where the chosen batch rows, all of which have the modality, stand in its features."""
        where = torch.full((len(self),), -1, dtype=torch.long)
        where[self.rows[modality]] = torch.arange(self.rows[modality].shape[0])
        return where[chosen]

    def alike(self, modality: str) -> Tensor | None:
        """(n_m,) positions in the features, equal for rows whose features are; None if none are.

        Such rows show the same recording, of which each has a caption of its own.
        """
        if modality not in self._alike:
            self._alike[modality] = self._compared(modality)
        return self._alike[modality]

    def _compared(self, modality: str) -> Tensor | None:
        if modality not in self.marks:
            return None
        return same_rows(self.features[modality], self.lengths.get(modality), self.marks[modality])

    def select(self, chosen: Tensor) -> "Batch":
        """The batch of some rows, in the order given; (n,) positions, repeats allowed."""
        features, lengths, rows, marks = {}, {}, {}, {}
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
            if name in self.marks:
                marks[name] = self.marks[name][where[kept]]
        return Batch(features, lengths, rows, self.index[chosen], self.stage[chosen], marks)

    def _mapped(self, function: Callable[[Tensor], Tensor]) -> Self:
        features = {name: function(tensor) for name, tensor in self.features.items()}
        lengths = {name: function(tensor) for name, tensor in self.lengths.items()}
        return replace(self, features=features, lengths=lengths)


def join(batches: Iterable[Batch]) -> Batch:
    """Rows of several batches in one; rows may differ in their modalities and in their lengths."""
    parts = list(batches)
    if not parts:
        raise ValueError("no batch to join: give at least one")
    if len(parts) == 1:
        return parts[0]
    names = dict.fromkeys(name for part in parts for name in part.features)
    starts = accumulate(map(len, parts[:-1]), initial=0)
    placed = list(zip(parts, starts, strict=True))
    features, lengths, rows, marks = {}, {}, {}, {}
    for name in names:
        having = [(part, start) for part, start in placed if name in part.features]
        tensors = [part.features[name] for part, _ in having]
        rows[name] = torch.cat([part.rows[name] + start for part, start in having])
        if name in having[0][0].lengths:
            lengths[name] = torch.cat([part.lengths[name] for part, _ in having])
            longest = max(tensor.shape[1] for tensor in tensors)
            tensors = [padded(tensor, longest) for tensor in tensors]
        features[name] = torch.cat(tensors)
        if all(name in part.marks for part, _ in having):
            marks[name] = torch.cat([part.marks[name] for part, _ in having])
    index, stage = (
        torch.cat(each) for each in zip(*((p.index, p.stage) for p in parts), strict=True)
    )
    return Batch(features, lengths, rows, index, stage, marks)


def marks_of(features: Tensor) -> Tensor:
    """(n,) numbers of (n, ...) features, equal where these are, and hardly ever where not."""
    # Both zeros are the same number, and what is padded with them has the same sum.
    begun = features.cpu().numpy().reshape(len(features), prod(features.shape[1:]))
    begun = np.ascontiguousarray(begun[:, :_MARKED]) + np.float32(0.0)
    return torch.from_numpy(begun.view(np.int32).sum(axis=1, dtype=np.int64))


def same_rows(
    features: Tensor, lengths: Tensor | None, marks: Tensor | None = None
) -> Tensor | None:
    """(n,) positions on the CPU, equal for rows of (n, ...) features that are; None if none are.

    ``lengths`` are valid steps, which alone count; ``marks`` what :func:`marks_of` says.
    """
    known = marks_of(features) if marks is None else marks
    _, which, counts = torch.unique(known, return_inverse=True, return_counts=True)
    suspects = (counts[which] > 1).nonzero().squeeze(1)
    if not len(suspects):
        return None
    where = suspects.to(features.device)
    steps, valid = 1, torch.ones_like(suspects)
    if lengths is not None:
        steps, valid = features.shape[1], lengths[where].cpu()
    shown = features[where].cpu().numpy().reshape(len(suspects), steps, -1)
    found, first = torch.arange(len(which)), dict[bytes, int]()
    for place, digest in zip(suspects.tolist(), digests(shown, valid.numpy()), strict=True):
        found[place] = first.setdefault(digest, place)
    return found if len(first) < len(suspects) else None


def answering(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """(n, n) which rows answer one another, from (n,) numbers of what they show on either side.

    Row i is answered by what is shown on the second side by every row that shows on the first what
    row i shows. True on the diagonal; None where nothing else is. No numbers: each shows its own.
    """
    known = next((each for each in (first, second) if each is not None), None)
    if known is None:
        return None
    itself = torch.arange(len(known))
    numbers = (itself if each is None else each for each in (first, second))
    same = [(each[:, None] == each).float() for each in numbers]
    right = (same[0] @ same[1]) > 0
    return None if int(right.sum()) == len(known) else right


def marked(batch: Batch) -> Batch:
    """The same batch, with marks."""
    return replace(batch, marks={name: marks_of(each) for name, each in batch.features.items()})


def padded(features: Tensor, steps: int) -> Tensor:
    """(n, time, ...) with zeros behind the time, up to so many steps; longer ones as they are."""
    if features.shape[1] >= steps:
        return features
    return pad(features, (0, 0) * (features.dim() - 2) + (0, steps - features.shape[1]))


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """The items that one stage, from 0 on, sees: (n,) rows of the dataset, and what of them."""

    stage: int
    rows: Tensor
    modalities: tuple[str, ...]


class Items(TorchDataset[Batch]):
    """The shares of one or more stages, one after the other.

    An element is a :class:`Batch` of one row, so that any loader's collate is ``join``. ``clips``
    items of one group are shown side by side, drawn with replacement if ``replace``; ``filled``
    pads items to the dataset's time, not to the longest of a batch; ``marked`` batches know which
    of their rows are the same in a modality.
    """

    def __init__(
        self,
        dataset: Dataset,
        shares: tuple[Share, ...],
        *,
        clips: int = 1,
        replace: bool = False,
        filled: bool = False,
        marked: bool = False,
    ) -> None:
        self.dataset = dataset
        self.shares = shares
        self.clips = clips
        self.replace = replace
        self.filled = filled
        self.marked = marked
        self._present = {
            name: torch.from_numpy(column.present) for name, column in dataset.columns.items()
        }

    def __len__(self) -> int:
        return sum(share.rows.shape[0] for share in self.shares)

    def __getitem__(self, position: int) -> Batch:
        place = position
        for share in self.shares:
            if 0 <= place < share.rows.shape[0]:
                return self._fetch(share, share.rows[place : place + 1])
            place -= share.rows.shape[0]
        raise IndexError(f"item {position} of {len(self)}")

    def block(self, chosen: tuple[Tensor, ...]) -> Batch:
        """Rows of every share at once; ``chosen`` holds positions within each share."""
        return join(
            self._fetch(share, share.rows[positions])
            for share, positions in zip(self.shares, chosen, strict=True)
        )

    def _fetch(self, share: Share, rows: Tensor) -> Batch:
        features, lengths, where, marks = {}, {}, {}, {}
        for name in share.modalities:
            kept = self._present[name][rows].nonzero().squeeze(1)
            if not kept.shape[0]:
                continue
            where[name] = kept
            column = self.dataset.columns[name]
            features[name], length = column.take(rows[kept])
            if self.marked:
                marks[name] = marks_of(features[name])
            if length is not None:
                lengths[name] = length
                if self.filled:
                    features[name] = padded(features[name], column.modality.shape[0])
        stage = torch.full(rows.shape, share.stage, dtype=torch.long)
        return Batch(features, lengths, where, rows, stage, marks)
