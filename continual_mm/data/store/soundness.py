"""What must hold between the tables of a store and what ``store.json`` says of them."""

from collections.abc import Mapping

import numpy as np

from continual_mm.data.findings import Findings
from continual_mm.data.shelf import FORM
from continual_mm.data.store.column import StoredColumn
from continual_mm.data.store.form import ModalityForm
from continual_mm.data.store.opening import Tables
from continual_mm.data.store.windows import Bounds


def check_tables(tables: Tables, columns: Mapping[str, StoredColumn], findings: Findings) -> None:
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
            findings.about(modality.name, problem, f"{FORM} or the shards are damaged")
        elif modality.kind.has_length:
            _check_times(column, findings)


def _is_cut(tables: Tables, column: StoredColumn, modality: ModalityForm) -> bool:
    rows = np.flatnonzero(column.present)
    counts = tables.items.counts(modality.name, rows)
    return bool((counts % modality.modality.features).any())


def _windows_are_sound(tables: Tables, column: StoredColumn, modality: ModalityForm) -> bool:
    rows = np.flatnonzero(column.present)
    recordings, begin, count = Bounds(tables.items, modality.name, len(modality.parts)).of(rows)
    if len(rows) and not 0 <= recordings.min() <= recordings.max() < len(tables.recordings):
        return False
    if (begin < 0).any() or (count < 0).any():
        return False
    for place, (part, features) in enumerate(modality.parts.items()):
        steps, cut = np.divmod(tables.recordings.counts(part, recordings), features)
        if cut.any() or (begin[:, place] + count[:, place] > steps).any():
            return False
    return True


def _check_times(column: StoredColumn, findings: Findings) -> None:
    valid, longest = column.valid[column.present], column.modality.shape[0]
    if len(valid) and not 1 <= valid.min() <= valid.max() <= longest:
        problem = f"has items of {valid.min()} to {valid.max()} steps, not 1 to {longest}"
        findings.about(column.modality.name, problem, f"{FORM} or the shards are damaged")
