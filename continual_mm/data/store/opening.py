"""From ``store.json`` to the tables and sources that it tells of."""

from dataclasses import dataclass
from pathlib import Path

from continual_mm.data.store.form import (
    GROUP_FIELDS,
    ArrowField,
    ModalityForm,
    StoreForm,
    TableName,
    item_fields,
    modality_fields,
    recording_fields,
)
from continual_mm.data.store.table import KeptValues, Source, StoredTable
from continual_mm.data.store.windows import Bounds, CutWindows, LargestValues
from continual_mm.data.store.words import WordRows, WordTable, word_file


@dataclass(frozen=True, slots=True, eq=False)
class Tables:
    """The tables of a store; nothing is opened before it is needed.

    Attributes:
        folder: The store.
        form: What it says about itself.
        items: One row per item.
        recordings: One row per recording; empty if there are none.
        groups: One row per group; empty if there are none.
    """

    folder: Path
    form: StoreForm
    items: StoredTable
    recordings: StoredTable
    groups: StoredTable

    def source(self, modality: ModalityForm) -> Source:
        """Where the steps of a modality come from."""
        name, features = modality.name, modality.modality.features
        if modality.source == "values":
            return KeptValues(self.items, name, features)
        if words := self.words(modality):
            return WordRows(self.items, name, words)
        bounds = Bounds(self.items, name, len(modality.parts))
        if modality.reduce:
            return LargestValues(bounds, self.recordings, modality.parts)
        (part,) = modality.parts
        return CutWindows(bounds, self.recordings, part, features, modality.shape[0])

    def words(self, modality: ModalityForm) -> WordTable | None:
        """The word vectors of a modality; None if it has none."""
        if modality.source != "words":
            return None
        shape = (modality.words, modality.modality.features)
        return WordTable(self.folder / word_file(modality.name), shape, self.form.dtype)


def tables_of(folder: Path, form: StoreForm) -> Tables:
    """The tables that a form tells of."""
    fields: dict[TableName, tuple[ArrowField, ...]] = {
        "items": item_fields(form.columns, form.modalities, form.dtype),
        "recordings": recording_fields(form.modalities, form.dtype),
        "groups": GROUP_FIELDS,
    }
    tables = {
        name: StoredTable(folder / name, form.tables.get(name, ()), columns)
        for name, columns in fields.items()
    }
    return Tables(folder, form, tables["items"], tables["recordings"], tables["groups"])


def presence_column(modality: ModalityForm) -> str:
    """The column of the items that is null in those which lack a modality."""
    return next(modality_fields(modality, "float16")).name
