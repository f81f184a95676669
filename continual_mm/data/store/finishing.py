"""What is found out about a store when its last item is written."""

from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from continual_mm.data.findings import first_few
from continual_mm.data.provenance import ProvenanceForm
from continual_mm.data.store.faults import Faults
from continual_mm.data.store.form import ModalityForm, StoreForm, digest_of_statistics
from continual_mm.data.store.layout import DType
from continual_mm.data.store.moments import Measure, Measured, measured_afterwards
from continual_mm.data.store.opening import Tables
from continual_mm.data.store.table import StoredTable, StoredTexts

_SMALLEST = float(np.finfo(np.float16).smallest_normal)
"""Below it float16 loses digit after digit, down to nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """What is known of a store before its first item.

    Attributes:
        folder: Where it is written.
        name: The dataset's.
        dtype: In which features are stored.
        modalities: Without their times and statistics.
        notes: What whoever looks at the store should know.
        provenance: How its items were converted.
    """

    folder: Path
    name: str
    dtype: DType
    modalities: tuple[ModalityForm, ...]
    notes: tuple[str, ...] = ()
    provenance: ProvenanceForm | None = None


def check_unique(items: StoredTable, hashes: "array[int]", faults: Faults) -> None:
    """Complain about ids that occur twice.

    Args:
        items: What was written.
        hashes: Of their ids, in order.
        faults: Takes the complaint.
    """
    values = np.frombuffer(hashes, dtype=np.uint64)
    ordered = np.sort(values)
    again = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(again):
        return
    suspects = np.flatnonzero(np.isin(values, again))
    ids, counts = np.unique(StoredTexts(items, "ids")[suspects], return_counts=True)
    if twice := [repr(str(one)) for one in ids[counts > 1]]:
        faults.about_store(f"ids occur more than once: {first_few(twice)}", "ids must be unique")


def with_statistics(tables: Tables, measured: Measured, faults: Faults) -> StoreForm:
    """The form of a store with the statistics of its training items.

    Args:
        tables: What was written.
        measured: What was gathered meanwhile.
        faults: Takes complaints about modalities that no training item has, if there are any, and
            about those of which float16 left nothing.
    """
    modalities = []
    for one in tables.form.modalities:
        found = _measure(one, tables, measured)
        if found is None and tables.form.items[0]:
            problem = f"no training item has the modality {one.name!r}"
            faults.about_store(problem, "nothing could be learnt of it")
        if found and tables.form.dtype == "float16":
            _check_digits(one.name, found, faults)
        mean, deviation = (tuple(each.tolist()) for each in found) if found else (None, None)
        modalities.append(one.model_copy(update={"mean": mean, "deviation": deviation}))
    said = {"modalities": tuple(modalities), "statistics": digest_of_statistics(modalities)}
    return tables.form.model_copy(update=said)


def _check_digits(name: str, found: Measure, faults: Faults) -> None:
    if (size := float(np.hypot(*found).max())) >= _SMALLEST:
        return
    problem = f"values of {name!r} are about {size:.1g}, of which float16 keeps no three digits"
    if not size:
        problem = f"values of {name!r} are 0 in all training items, or too small for float16"
    faults.about_store(problem, 'write dtype="float32"')


def _measure(modality: ModalityForm, tables: Tables, measured: Measured) -> Measure | None:
    if words := tables.words(modality):
        return measured.words(modality.name, words.vectors)
    if modality.source == "values":
        return measured.values(modality.name)
    return measured_afterwards(tables, modality)
