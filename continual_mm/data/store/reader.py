"""Reads a store as a dataset whose features stay on the disk."""

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from continual_mm.data.cards import FORM
from continual_mm.data.dataset import Dataset, Standardise, chosen, fitting
from continual_mm.data.findings import Findings
from continual_mm.data.schema import count_splits
from continual_mm.data.statistics import BLOCK_VALUES, Statistics
from continual_mm.data.store.form import ModalityForm, StoreForm, read_form
from continual_mm.data.store.opening import Tables, presence_column, tables_of
from continual_mm.data.store.shards import Digest, add_words, fingerprint_of
from continual_mm.data.store.statistics import measured_afterwards
from continual_mm.data.store.table import Source, StoredTable, StoredTexts, blocks_of, steps_of
from continual_mm.data.store.windows import Bounds
from continual_mm.definitions.modality import SPLITS, Modality

_ROWS = 1 << 20
"""Rows that are looked at at once."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredColumn:
    """One modality of every item, in a store.

    Attributes:
        modality: Name, kind, and shape of one item.
        present: (items,) whether an item has the modality.
        source: Where its steps come from.
        statistics: What they are standardised by; None leaves them alone.
    """

    modality: Modality
    present: NDArray[np.bool_]
    source: Source
    statistics: Statistics | None = None

    @property
    def valid(self) -> NDArray[np.int64]:
        """(items,) steps that carry signal; 0 for an item that lacks the modality."""
        valid = np.zeros(len(self.present), dtype=np.int64)
        for rows in self.rows():
            valid[rows] = self.source.counts(rows)
        return valid

    def rows(self) -> Iterator[NDArray[np.int64]]:
        """The items that have the modality, ascending, about a million at once."""
        for start in range(0, len(self.present), _ROWS):
            yield start + np.flatnonzero(self.present[start : start + _ROWS])

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features of some rows, all of which have the modality.

        Args:
            rows: (n,) rows of the dataset.

        Returns:
            (n, ...) float32, cut behind the longest of them, and (n,) valid steps; None for a
            vector.
        """
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
        for block in blocks_of(counts * features, BLOCK_VALUES):
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


_DAMAGED = f"{FORM} or the shards are damaged"
_LAST_BITS = 1e-9
"""Of a feature's root mean square; sums in another order differ by less."""


def read_store(
    folder: str | os.PathLike[str],
    *,
    standardise: Standardise = True,
    splits: Collection[str] = SPLITS,
) -> Dataset:
    """Open a store; its features, ids and texts are read when they are asked for.

    What the shards say of themselves is checked against ``store.json`` here, their features are
    not looked at; :func:`verify_store` does that.

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
    statistics = _statistics(form, standardise, findings)
    findings.refuse()
    tables = tables_of(path, form)
    split = tables.items.scalars("split")
    if count_splits(split) != form.items:
        findings.about("split", f"counts {count_splits(split)}, but {FORM} says {form.items}")
    columns = {
        modality.name: StoredColumn(
            modality.modality,
            tables.items.present(presence_column(modality)),
            tables.source(modality),
            statistics.get(modality.name),
        )
        for modality in form.modalities
    }
    scalars = {
        name: tables.items.scalars(name) for name in ("label", "group") if name in form.columns
    }
    _check_tables(tables, columns, findings)
    _check_groups(scalars.get("group"), tables, findings)
    findings.refuse()
    return Dataset(
        form.card,
        columns,
        StoredTexts(tables.items, "ids"),
        split,
        scalars.get("label"),
        scalars.get("group"),
        StoredTexts(tables.items, "text_raw") if "text_raw" in form.columns else None,
        None,
        statistics,
        form.notes,
    )


def group_names(folder: str | os.PathLike[str]) -> StoredTexts | None:
    """The names that stand behind the numbers of ``Dataset.group``; None if there are no groups.

    Raises:
        InputError: With what is wrong, files named.
    """
    path = Path(folder)
    form = read_form(path)
    return StoredTexts(tables_of(path, form).groups, "ids") if "group" in form.columns else None


def verify_store(folder: str | os.PathLike[str]) -> None:
    """Read every byte of a store and compare it with the fingerprint that its writer gave it.

    Means and deviations are measured anew.

    Raises:
        InputError: If anything has changed since.
    """
    path = Path(folder)
    form = read_form(path)
    tables = tables_of(path, form)
    digest = Digest()
    for table in (tables.items, tables.recordings, tables.groups):
        for block in table.blocks():
            digest.add(table.folder.name, block)
    for modality in form.modalities:
        if words := tables.words(modality):
            add_words(digest, modality.name, words.vectors)
    findings = Findings(str(path))
    remedy = "the store is damaged: write it anew, or copy it whole"
    if fingerprint_of(digest, form.modalities) != form.fingerprint:
        problem = f"holds other values than those of the fingerprint in {FORM}"
        findings.about_source(problem, remedy)
    findings.refuse()
    for modality in form.modalities:
        if not _was_measured(modality, tables):
            problem = f"has other means and deviations than {FORM} says"
            findings.about(modality.name, problem, remedy)
    findings.refuse()


def _was_measured(modality: ModalityForm, tables: Tables) -> bool:
    """Whether means and deviations are those of the training items, but for last bits."""
    found = measured_afterwards(tables, modality)
    if found is None or modality.mean is None or modality.deviation is None:
        return found is None and modality.mean is None
    said, scale = (np.array(modality.mean), np.array(modality.deviation)), np.hypot(*found)
    return all((abs(a - b) <= _LAST_BITS * scale).all() for a, b in zip(said, found, strict=True))


def _statistics(form: StoreForm, wanted: Standardise, findings: Findings) -> dict[str, Statistics]:
    if isinstance(wanted, Mapping):
        return fitting(wanted, form.card.modalities, findings)
    found = {}
    names = chosen(wanted, form.card.modalities, findings)
    for modality in (one for one in form.modalities if one.name in names):
        if modality.mean is None or modality.deviation is None:
            remedy = "give the statistics of another dataset, or standardise = false"
            findings.about(modality.name, "cannot be standardised: no training item has it", remedy)
            continue
        mean, deviation = np.array(modality.mean), np.array(modality.deviation)
        found[modality.name] = Statistics.from_moments(mean, deviation)
    return found


def _check_tables(tables: Tables, columns: Mapping[str, StoredColumn], findings: Findings) -> None:
    """Complain about rows that are no items of their modality; no feature is looked at."""
    for modality in tables.form.modalities:
        column = columns[modality.name]
        if words := tables.words(modality):
            _ = words.vectors
        if modality.source == "windows" and not _windows_are_sound(tables, column, modality):
            problem = "leads to recordings or steps that are not there"
            findings.about(modality.name, problem, "write the store anew")
        elif modality.source == "values" and _is_cut(tables, column, modality):
            problem = f"has items that are not divisible into {column.modality.features} features"
            findings.about(modality.name, problem, _DAMAGED)
        elif modality.kind.has_length:
            _check_times(column, findings)


def _is_cut(tables: Tables, column: StoredColumn, modality: ModalityForm) -> bool:
    counts = (tables.items.counts(modality.name, rows) for rows in column.rows())
    return any((count % modality.modality.features).any() for count in counts)


def _windows_are_sound(tables: Tables, column: StoredColumn, modality: ModalityForm) -> bool:
    bounds = Bounds(tables.items, modality.name, len(modality.parts))
    found = (bounds.of(rows) for rows in column.rows() if len(rows))
    return all(_are_inside(tables.recordings, modality, *each) for each in found)


def _are_inside(
    table: StoredTable,
    modality: ModalityForm,
    recordings: NDArray[np.int64],
    begin: NDArray[np.int64],
    count: NDArray[np.int64],
) -> bool:
    if not 0 <= recordings.min() <= recordings.max() < len(table):
        return False
    if (begin < 0).any() or (count < 0).any():
        return False
    for place, (part, features) in enumerate(modality.parts.items()):
        steps, cut = np.divmod(table.counts(part, recordings), features)
        if cut.any() or (begin[:, place] + count[:, place] > steps).any():
            return False
    return True


def _check_times(column: StoredColumn, findings: Findings) -> None:
    counts = (column.source.counts(rows) for rows in column.rows() if len(rows))
    bounds = [(int(each.min()), int(each.max())) for each in counts]
    least = min((low for low, _ in bounds), default=1)
    most = max((high for _, high in bounds), default=1)
    if not 1 <= least <= most <= column.modality.shape[0]:
        problem = f"has items of {least} to {most} steps, not 1 to {column.modality.shape[0]}"
        findings.about(column.modality.name, problem, _DAMAGED)


def _check_groups(group: NDArray[np.int64] | None, tables: Tables, findings: Findings) -> None:
    if group is not None and not 0 <= group.min() <= group.max() < len(tables.groups):
        findings.about("group", "leads to groups that are not there", _DAMAGED)
