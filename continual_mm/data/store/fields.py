"""The columns of a store's tables, as both the writer and the reader know them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from continual_mm.data.store.form import ModalityForm

ITEM_FIELDS = {"ids": "string", "split": "int8"}
"""What every item has."""
OPTIONAL_FIELDS = {"label": "int64", "group": "int64", "text_raw": "string"}
"""What all items have or none."""


@dataclass(frozen=True, slots=True)
class Field:
    """A column.

    Attributes:
        name: Of the column.
        dtype: Of a value, by Arrow's and numpy's name; ``string`` is UTF-8.
        width: Values per row; 0 if rows differ, None if there is one and no list.
    """

    name: str
    dtype: str
    width: int | None = None


def item_fields(
    columns: Iterable[str], modalities: Iterable[ModalityForm], dtype: str
) -> tuple[Field, ...]:
    """The columns of the items: what all items have, the optional ones given, the modalities'."""
    plain = {**ITEM_FIELDS, **{name: OPTIONAL_FIELDS[name] for name in columns}}
    own = (field for modality in modalities for field in modality_fields(modality, dtype))
    return (*(Field(name, kind) for name, kind in plain.items()), *own)


def modality_fields(modality: ModalityForm, dtype: str) -> Iterator[Field]:
    """The columns of one modality; in an item that lacks it, the first of them is null."""
    if modality.source == "windows":
        yield Field(f"{modality.name}_recording", "int64")
        for bound in ("begin", "end"):
            yield Field(f"{modality.name}_{bound}", "int32", len(modality.parts))
    elif modality.source == "words":
        yield Field(modality.name, "int32", 0)
    else:
        width = 0 if modality.kind.has_length else modality.modality.features
        yield Field(modality.name, dtype, width)


def recording_fields(modalities: Iterable[ModalityForm], dtype: str) -> tuple[Field, ...]:
    """The columns of the recordings: a name, and every part that windows are cut out of."""
    parts = dict.fromkeys(part for modality in modalities for part in modality.parts)
    return (Field("ids", "string"), *(Field(part, dtype, 0) for part in parts))


GROUP_FIELDS = (Field("ids", "string"),)
"""The columns of the groups: a name, for the number that items hold."""
