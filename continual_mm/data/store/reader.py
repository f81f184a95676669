"""Reads a store as a dataset whose features stay on the disk."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from continual_mm.data.dataset import Dataset, Standardise, fitting
from continual_mm.data.findings import Findings
from continual_mm.data.rows import check_counts, count_splits
from continual_mm.data.shelf import FORM
from continual_mm.data.standardise import Statistics
from continual_mm.data.store.column import StoredColumn
from continual_mm.data.store.digest import Digest
from continual_mm.data.store.fingerprint import add_words, fingerprint_of
from continual_mm.data.store.form import StoreForm, read_form
from continual_mm.data.store.opening import presence_column, tables_of
from continual_mm.data.store.soundness import check_tables
from continual_mm.data.store.texts import StoredTexts


def read_store(
    folder: str | os.PathLike[str],
    *,
    standardise: Standardise = True,
    splits: Collection[str] = (),
) -> Dataset:
    """Open a store; its features, ids and texts are read when they are asked for.

    What the shards say of themselves is checked against ``store.json`` here, their features are
    not looked at; :func:`verify_store` does that.

    Args:
        folder: The store.
        standardise: Whether each feature gets mean 0 and standard deviation 1 over the training
            items, as measured when the store was written, or the names of the modalities whose
            features do, or what was measured on another dataset; False leaves the values alone.
        splits: Splits that must have items.

    Raises:
        RefusedError: With what is wrong, files named.
    """
    path = Path(folder)
    form = read_form(path)
    findings = Findings(str(path))
    check_counts(form.items, findings, needed=splits)
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
    check_tables(tables, columns, findings)
    findings.refuse()
    scalars = {
        name: tables.items.scalars(name) for name in ("label", "group") if name in form.columns
    }
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
    )


def group_names(folder: str | os.PathLike[str]) -> StoredTexts | None:
    """The names that stand behind the numbers of ``Dataset.group``; None if there are no groups.

    Raises:
        RefusedError: With what is wrong, files named.
    """
    path = Path(folder)
    form = read_form(path)
    return StoredTexts(tables_of(path, form).groups, "ids") if "group" in form.columns else None


def verify_store(folder: str | os.PathLike[str]) -> None:
    """Read every byte of a store and compare it with the fingerprint that its writer gave it.

    Raises:
        RefusedError: If anything has changed since.
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
    if fingerprint_of(digest, form.modalities) != form.fingerprint:
        findings = Findings(str(path))
        findings.about_source(
            f"holds other values than those of the fingerprint in {FORM}",
            "the store is damaged: write it anew, or copy it whole",
        )
        findings.refuse()


def _statistics(form: StoreForm, wanted: Standardise, findings: Findings) -> dict[str, Statistics]:
    if isinstance(wanted, Mapping):
        return fitting(wanted, form.card.modalities, findings)
    found = {}
    for modality in form.modalities:
        if not (wanted if isinstance(wanted, bool) else modality.name in wanted):
            continue
        if modality.mean is None or modality.deviation is None:
            remedy = "give the statistics of another dataset, or standardise = false"
            findings.about(modality.name, "cannot be standardised: no training item has it", remedy)
            continue
        mean, deviation = np.array(modality.mean), np.array(modality.deviation)
        found[modality.name] = Statistics.from_moments(mean, deviation)
    return found
