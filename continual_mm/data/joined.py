"""Several datasets as one, whose features stay where they are."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from continual_mm.data.batch import padded
from continual_mm.data.columns import Column, Texts
from continual_mm.data.corpora import joined_card
from continual_mm.data.dataset import Dataset
from continual_mm.data.schema import NOT_GIVEN, with_own_groups
from continual_mm.definitions.modality import Modality
from continual_mm.space.statistics import Statistics, same
from continual_mm.system.errors import InputError, Problem

Found = tuple[NDArray[np.int64], int, NDArray[np.int64]]
"""Places of some rows in what was asked for, the dataset that has them, and their rows in it."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Where the items of each dataset begin: (datasets + 1,) rows, the last one their number."""

    starts: NDArray[np.int64]

    def find(self, rows: NDArray[np.int64]) -> Iterator[Found]:
        """The datasets that some rows are of."""
        which = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(which).tolist():
            places = np.flatnonzero(which == number)
            yield places, number, rows[places] - self.starts[number]


@dataclass(frozen=True, slots=True, eq=False)
class JoinedColumn:
    """One modality of the items of several datasets; None where a dataset lacks it."""

    modality: Modality
    present: NDArray[np.bool_]
    layout: Layout
    parts: Sequence[Column | None]

    @property
    def valid(self) -> NDArray[np.int64]:
        """(items,) steps that carry signal; 0 for an item that lacks the modality."""
        valid = np.zeros(len(self.present), dtype=np.int64)
        for start, part in zip(self.layout.starts.tolist(), self.parts, strict=False):
            if part is not None:
                valid[start : start + len(part.present)] = part.valid
        return valid

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features of some rows, as :meth:`~continual_mm.data.columns.Column.take` says."""
        found = list(self.layout.find(rows.numpy()))
        taken = [
            (torch.from_numpy(places), *part.take(torch.from_numpy(own)))
            for places, number, own in found
            if (part := self.parts[number]) is not None
        ]
        if len(taken) == 1:
            return taken[0][1:]
        shape = self.modality.shape
        if not self.modality.kind.has_length:
            values = torch.empty(len(rows), *shape)
            for places, features, _ in taken:
                values[places] = features
            return values, None
        time = max((features.shape[1] for _, features, _ in taken), default=0)
        values = torch.zeros(len(rows), time, *shape[1:])
        lengths = torch.zeros(len(rows), dtype=torch.int64)
        for places, features, steps in taken:
            values[places] = padded(features, time)
            if steps is not None:
                lengths[places] = steps
        return values, lengths


@dataclass(frozen=True, slots=True, eq=False)
class JoinedTexts:
    """A text for every item of several datasets; empty where a dataset has none."""

    layout: Layout
    parts: Sequence[Texts | None]
    prefixes: Sequence[str]

    def __len__(self) -> int:
        return int(self.layout.starts[-1])

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.str_]:
        """Those of some rows, or of one."""
        found = np.full(np.shape(rows), "", dtype=object)
        flat = found.reshape(-1)
        for places, number, own in self.layout.find(np.asarray(rows).reshape(-1)):
            part = self.parts[number]
            if part is not None:
                flat[places] = [f"{self.prefixes[number]}{text}" for text in part[own].tolist()]
        return flat.reshape(np.shape(rows)).astype(np.str_)


def joined(datasets: Mapping[str, Dataset]) -> Dataset:
    """Put datasets together, see :func:`~continual_mm.data.corpora.together`."""
    if len(datasets) == 1:
        return next(iter(datasets.values()))
    card = joined_card({name: each.card for name, each in datasets.items()})
    if problems := list(_differing(datasets)):
        raise InputError(problems)
    every = tuple(datasets.values())
    layout = Layout(np.cumsum([0, *map(len, every)], dtype=np.int64))
    statistics: dict[str, Statistics] = {}
    for each in reversed(every):
        statistics |= each.statistics
    return Dataset(
        card,
        {one.name: _column(one, every, layout) for one in card.modalities},
        JoinedTexts(layout, [each.ids for each in every], _prefixes(datasets)),
        np.concatenate([each.split for each in every]),
        _labels(every),
        _groups(every),
        JoinedTexts(layout, [each.text for each in every], [""] * len(every))
        if any(each.text is not None for each in every)
        else None,
        _pictures(every),
        statistics,
        tuple(dict.fromkeys(note for each in every for note in each.notes)),
    )


def _differing(datasets: Mapping[str, Dataset]) -> Iterator[Problem]:
    """A problem for each modality that two datasets standardise by different statistics."""
    known: dict[str, tuple[str, Statistics | None]] = {}
    for name, dataset in datasets.items():
        for modality in dataset.columns:
            own = dataset.statistics.get(modality)
            first, other = known.setdefault(modality, (name, own))
            if not same(own, other):
                problem = f"{modality} is standardised otherwise than in '{first}'"
                remedy = f"read it with the statistics of '{first}', standardise=first.statistics"
                yield Problem(f"dataset '{name}'", problem, remedy)


def _prefixes(datasets: Mapping[str, Dataset]) -> list[str]:
    """What tells ids of one dataset from those of another: its card's name, numbered if need be."""
    names = [each.card.name for each in datasets.values()]
    return [
        f"{name}{'' if names.count(name) == 1 else f'-{number}'}/"
        for number, name in enumerate(names, start=1)
    ]


def _column(modality: Modality, datasets: Iterable[Dataset], layout: Layout) -> JoinedColumn:
    parts = [each.columns.get(modality.name) for each in datasets]
    present = np.zeros(int(layout.starts[-1]), dtype=np.bool_)
    for start, part in zip(layout.starts.tolist(), parts, strict=False):
        if part is not None:
            present[start : start + len(part.present)] = part.present
    return JoinedColumn(modality, present, layout, parts)


def _labels(datasets: Sequence[Dataset]) -> NDArray[np.int64] | None:
    if all(each.label is None for each in datasets):
        return None
    return np.concatenate(
        [np.full(len(each), NOT_GIVEN) if each.label is None else each.label for each in datasets]
    )


def _groups(datasets: Sequence[Dataset]) -> NDArray[np.int64] | None:
    if all(each.group is None for each in datasets):
        return None
    found, begun = [], 0
    for each in datasets:
        known = np.full(len(each), NOT_GIVEN) if each.group is None else each.group
        number = np.unique(with_own_groups(known), return_inverse=True)[1]
        found.append(number.astype(np.int64) + begun)
        begun += int(number.max(initial=-1)) + 1
    return np.concatenate(found)


def _pictures(datasets: Sequence[Dataset]) -> NDArray[np.uint8] | None:
    """The thumbnails, if all have some of one size."""
    pictures = [each.picture for each in datasets if each.picture is not None]
    shapes = {each.shape[1:] for each in pictures}
    return np.concatenate(pictures) if len(pictures) == len(datasets) and len(shapes) == 1 else None
