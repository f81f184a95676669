"""Reads a store as a dataset whose features stay on the disk."""

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from continual_mm.data.cards import FORM
from continual_mm.data.dataset import Dataset, Standardise, statistics_by
from continual_mm.data.findings import Findings
from continual_mm.data.schema import NOT_GIVEN, count_splits, presence_of, with_own_groups
from continual_mm.data.statistics import BLOCK_VALUES, Moments
from continual_mm.data.store import sources
from continual_mm.data.store.form import DAMAGED, ModalityForm, read_form
from continual_mm.data.store.tables import Digest, StoredTexts, steps_of
from continual_mm.definitions.modality import SPLITS, Modality, Presence
from continual_mm.space.statistics import Statistics
from continual_mm.system.arguments import checked_arguments
from continual_mm.system.reading import reads

_LAST_BITS = 1e-9  # of a feature's root mean square; sums in another order differ by less


@dataclass(frozen=True, slots=True, eq=False)
class StoredColumn:
    """One modality of every item, in a store; without statistics it is not standardised."""

    modality: Modality
    present: NDArray[np.bool_]
    source: sources.Source
    statistics: Statistics | None = None

    @property
    def valid(self) -> NDArray[np.int64]:
        """(items,) steps that carry signal; 0 for an item that lacks the modality."""
        valid = np.zeros(len(self.present), dtype=np.int64)
        for rows in self.rows():
            valid[rows] = self.source.counts(rows)
        return valid

    def rows(self) -> Iterator[NDArray[np.int64]]:
        """The items that have the modality, ascending, about a million at a time."""
        for start in range(0, len(self.present), sources.MOST_ROWS):
            yield start + np.flatnonzero(self.present[start : start + sources.MOST_ROWS])

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features of some rows, as :meth:`~continual_mm.data.columns.Column.take` says."""
        # Neighbours on the disk are read one after the other.
        order = np.argsort(rows.numpy(), kind="stable")
        chosen = rows.numpy()[order]
        counts = self.source.counts(chosen)
        shape, features = self.modality.shape, self.modality.features
        has_length = self.modality.kind.has_length
        time = int(counts.max(initial=0)) if has_length else 1
        # Every value of vectors is written below, and only they have no padding.
        begun = np.zeros if has_length else np.empty
        taken = begun((len(chosen), time, features), dtype=np.float32)
        steps = taken.reshape(-1, features)
        for block in sources.blocks_of(counts * features, BLOCK_VALUES):
            places = steps_of(order[block] * time, counts[block])
            steps[places] = self._standardised(self.source.read(chosen[block]))
        if not has_length:
            return torch.from_numpy(taken.reshape(len(chosen), *shape)), None
        lengths = np.empty_like(counts)
        lengths[order] = counts
        values = torch.from_numpy(taken.reshape(len(chosen), time, *shape[1:]))
        return values, torch.from_numpy(lengths)

    def _standardised(self, steps: NDArray[Any]) -> NDArray[np.float32]:
        # torch turns halves into floats twenty times as fast as numpy does.
        values = torch.from_numpy(steps)
        if self.statistics is not None:
            # Floats get float64, so that they are bit for bit those of the same arrays in memory.
            # Halves are 8,192 times as coarse as float32, in which all is done four times as fast.
            wide = torch.float32 if values.dtype == torch.float16 else torch.float64
            mean = torch.from_numpy(self.statistics.mean).to(wide)
            rate = torch.from_numpy(self.statistics.rate).to(wide)
            values = values.to(wide).sub_(mean).mul_(rate)
        standardised: NDArray[np.float32] = values.float().numpy()
        return standardised


@checked_arguments
@reads
def read_store(
    folder: str | os.PathLike[str],
    *,
    standardise: Standardise = True,
    splits: Collection[str] = SPLITS,
) -> Dataset:
    """Open a store; its features, ids and texts are read when they are asked for.

    Sizes, columns and rows of the shards are checked against ``store.json``; their features are
    not read, which :func:`verify_store` does.

    Args:
        folder: The store.
        standardise: Whether each feature gets mean 0 and standard deviation 1 over the training
            items, as measured when the store was written, or the names of the modalities whose
            features do, or what was measured on another dataset; False leaves the values alone.
        splits: Splits that must have items; ``test`` is enough where nothing is trained.

    Raises:
        InputError: With what is wrong, files named.
    """
    path = Path(folder)
    form = read_form(path)
    findings = Findings(str(path))
    form.check_splits(findings, needed=splits)
    measured = {
        one.name: Statistics.from_moments(np.array(one.mean), np.array(one.deviation))
        for one in form.modalities
        if one.mean is not None and one.deviation is not None
    }
    statistics = statistics_by(standardise, form.card.modalities, measured.get, findings)
    findings.refuse()
    tables = sources.Tables(path, form)
    split = tables.items.column("split")
    if count_splits(split) != form.items:
        findings.about("split", f"counts {count_splits(split)}, but {FORM} says {form.items}")
    columns = {
        modality.name: StoredColumn(
            modality.modality,
            tables.items.present(modality.columns[0]),
            tables.sources[modality.name],
            statistics.get(modality.name),
        )
        for modality in form.modalities
    }
    scalars = {
        name: tables.items.column(name, null=NOT_GIVEN)
        for name in ("label", "group")
        if name in form.columns
    }
    presence = presence_of(split, {name: each.present for name, each in columns.items()})
    if form.presence not in (None, presence):
        findings.about_source(f"items lack other modalities than {FORM} says", DAMAGED)
    for modality in form.modalities:
        if problem := _fault(modality, columns[modality.name], tables):
            findings.about(modality.name, problem, DAMAGED)
    group = scalars.get("group")
    if group is not None and not NOT_GIVEN <= group.min() <= group.max() < len(tables.groups):
        findings.about("group", "leads to groups that are not there", DAMAGED)
    findings.refuse()
    return Dataset(
        replace(form.card, presence=presence),
        columns,
        StoredTexts(tables.items, "ids"),
        split,
        scalars.get("label"),
        None if group is None else with_own_groups(group),
        StoredTexts(tables.items, "text_raw") if "text_raw" in form.columns else None,
        None,
        statistics,
        form.notes,
    )


def store_presence(folder: Path) -> Presence:
    """What the items of a store have, counted: stores of earlier versions do not say."""
    form = read_form(folder)
    items = sources.Tables(folder, form).items
    present = {each.name: items.present(each.columns[0]) for each in form.modalities}
    return presence_of(items.column("split"), present)


def group_names(folder: str | os.PathLike[str]) -> StoredTexts | None:
    """The names of the groups that ``Dataset.group`` numbers; None if there are no groups.

    Higher numbers are of items by themselves, of which no group is known.
    """
    path = Path(folder)
    form = read_form(path)
    return (
        StoredTexts(sources.Tables(path, form).groups, "ids") if "group" in form.columns else None
    )


@reads
def verify_store(folder: str | os.PathLike[str]) -> None:
    """Compare every byte of a store with its fingerprint, and its statistics with its values."""
    path = Path(folder)
    form = read_form(path)
    tables = sources.Tables(path, form)
    digest = Digest()
    for table in (tables.items, tables.recordings, tables.groups):
        for block in table.blocks():
            digest.add(table.name, block)
    for name, source in tables.sources.items():
        if isinstance(source, sources.WordRows):
            sources.add_words(digest, name, source.vectors)
    findings = Findings(str(path))
    if digest.fingerprint(form.modalities) != form.fingerprint:
        problem = f"holds other values than those of the fingerprint in {FORM}"
        findings.about_source(problem, DAMAGED)
    findings.refuse()
    for modality in form.modalities:
        if not _is_as_measured(modality, sources.measured(tables, modality)):
            problem = f"has other means and deviations than {FORM} says"
            findings.about(modality.name, problem, DAMAGED)
    findings.refuse()


def _is_as_measured(modality: ModalityForm, found: Moments | None) -> bool:
    """Whether means and deviations are those that were found, but for last bits."""
    if found is None or modality.mean is None or modality.deviation is None:
        return found is None and modality.mean is None
    stored, scale = (np.array(modality.mean), np.array(modality.deviation)), np.hypot(*found)
    pairs = zip(stored, found, strict=True)
    return all((abs(one - other) <= _LAST_BITS * scale).all() for one, other in pairs)


def _fault(modality: ModalityForm, column: StoredColumn, tables: sources.Tables) -> str:
    """What is wrong with the rows of a modality; empty if nothing is. No feature is read."""
    name, features = modality.name, modality.modality.features
    if isinstance(column.source, sources.WordRows):
        _ = column.source.vectors
    if isinstance(column.source, sources.WindowSteps) and not _exist(column.source, column):
        return "leads to recordings or steps that are not there"
    if modality.source == "values":
        counts = (tables.items.counts(name, rows) for rows in column.rows())
        if any((count % features).any() for count in counts):
            return f"has items that are not divisible into {features} features"
    if modality.kind.has_length:
        steps = [column.source.counts(rows) for rows in column.rows() if len(rows)]
        least = min((int(each.min()) for each in steps), default=1)
        most = max((int(each.max()) for each in steps), default=1)
        if not 1 <= least <= most <= modality.shape[0]:
            return f"has items of {least} to {most} steps, not 1 to {modality.shape[0]}"
    return ""


def _exist(windows: sources.WindowSteps, column: StoredColumn) -> bool:
    """Whether all windows lie inside of recordings."""
    items, recordings, form = windows.items, windows.recordings, windows.form
    if any((items.present(one) != column.present).any() for one in form.columns):
        return False
    steps = []
    for part, features in form.parts.items():
        whole, rest = np.divmod(recordings.counts(part, np.arange(len(recordings))), features)
        if rest.any():
            return False
        steps.append(whole)
    lengths = np.stack(steps, axis=1)
    for number, begin, count in (windows.bounds(rows) for rows in column.rows() if len(rows)):
        if not 0 <= number.min() <= number.max() < len(recordings):
            return False
        if (begin < 0).any() or (count < 0).any() or (begin + count > lengths[number]).any():
            return False
    return True
