"""Feature packs: one .npz file per dataset, one float array per modality."""

import math
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile, ZipInfo

import numpy as np
import numpy.lib.format as npy
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

from continual_mm.data.archive import Archive, Header
from continual_mm.data.dataset import Dataset, Standardise, assemble, make_card
from continual_mm.data.findings import Findings
from continual_mm.data.provenance import ProvenanceForm
from continual_mm.data.schema import KIND, PRESENT, SPLIT_NUMBERS, Schema, check_split, read_schema
from continual_mm.definitions.modality import SPLITS, DatasetCard, Provenance
from continual_mm.system.arguments import checked_arguments
from continual_mm.system.files import atomic_write
from continual_mm.system.memory import gigabytes, machine_memory
from continual_mm.system.reading import reads

PROVENANCE = "provenance"
"""The column, of one text in JSON, that says how published files were converted into a pack."""

_LONGEST_PROVENANCE = 4096  # bytes of that column

_UNIX, _READABLE_BY_ALL = 3, 0o644 << 16


@checked_arguments
@reads
def read_pack(
    path: str | os.PathLike[str],
    *,
    standardise: Standardise = True,
    splits: Collection[str] = SPLITS,
) -> Dataset:
    """Read a feature pack into memory, checked row by row.

    Nothing in the file is ever unpickled.

    Args:
        path: An .npz file.
        standardise: Whether each feature gets mean 0 and standard deviation 1 over the training
            items, or the names of the modalities whose features do, or what was measured on
            another dataset; False leaves the values alone.
        splits: Splits that must have items; ``test`` is enough where nothing is trained.

    Raises:
        InputError: With everything that is wrong, columns and rows named.
    """
    findings = Findings(str(path))
    with Archive(Path(path), findings) as archive:
        schema = _schema(archive, findings)
        provenance = _provenance(archive, findings)
        check_fits([archive.headers[name] for name in schema.used], machine_memory(), findings)
        read = {name: archive.read(name) for name in schema.used}
    return assemble(
        {name: column for name, column in read.items() if column is not None},
        schema,
        findings,
        name=Path(path).stem,
        fingerprint=archive.fingerprint,
        standardised=standardise,
        splits=splits,
        provenance=provenance.provenance if provenance else None,
    )


@reads
def read_card(path: str | os.PathLike[str], *, splits: Collection[str] = SPLITS) -> DatasetCard:
    """A pack's card, from its headers, kinds, split and groups alone, in a few milliseconds."""
    findings = Findings(str(path))
    with Archive(Path(path), findings) as archive:
        schema = _schema(archive, findings)
        provenance = _provenance(archive, findings)
        column = archive.read("split") if "split" in schema.used else None
        group = archive.read("group") if "group" in schema.used else None
        present = {
            one.name: found
            for one in schema.modalities
            if one.name + PRESENT in schema.used
            and (found := archive.read(one.name + PRESENT)) is not None
        }
    remedy = provenance.remedy if provenance else SPLIT_NUMBERS
    split = check_split(column, findings, needed=splits, remedy=remedy)
    findings.refuse()
    return make_card(
        schema,
        split,
        group,
        present,
        name=Path(path).stem,
        fingerprint=archive.fingerprint,
        provenance=provenance.provenance if provenance else None,
    )


def write_pack(path: str | os.PathLike[str], arrays: Mapping[str, ArrayLike]) -> None:
    """Write columns as a feature pack, whole or not at all, and the same bytes each time."""
    with atomic_write(Path(path)) as temporary, ZipFile(temporary, "w") as archive:
        for name, values in arrays.items():
            # Not compressed: those bytes depend on the version of zlib, and features hardly shrink.
            # A fresh ZipInfo is dated 1980, so that the clock does not enter the bytes.
            member = ZipInfo(f"{name}.npy")
            member.create_system, member.external_attr = _UNIX, _READABLE_BY_ALL
            with archive.open(member, "w", force_zip64=True) as part:
                npy.write_array(part, np.asarray(values, order="C"), allow_pickle=False)


def write_pack_rows(source: Path, target: Path, rows: NDArray[np.int64]) -> None:
    """Write some items of a pack, given by their rows, as another; all columns as they are.

    Raises:
        InputError: If the source is no pack, or is damaged.
    """
    findings = Findings(str(source))
    with Archive(source, findings) as archive:
        _schema(archive, findings)
        findings.refuse()
        items = archive.headers["ids"].shape
        columns = {name: archive.read(name) for name in archive.headers}
    findings.refuse()
    write_pack(
        target,
        {
            name: column[rows] if column.shape[:1] == items else column
            for name, column in columns.items()
            if column is not None
        },
    )


def provenance_column(provenance: Provenance | None) -> dict[str, NDArray[Any]]:
    """The column that keeps it in a pack; none of nothing."""
    form = ProvenanceForm.of(provenance)
    return {} if form is None else {PROVENANCE: np.array(form.model_dump_json())}


def check_fits(headers: Iterable[Header], memory: int, findings: Findings) -> None:
    """Refuse arrays that fill the memory as float32, as a few megabytes of compressed zeros can."""
    needed = sum(math.prod(header.shape) * max(header.dtype.itemsize, 4) for header in headers)
    if needed > memory:
        findings.about_source(
            f"needs {gigabytes(needed)} in memory, which is more than the {gigabytes(memory)}"
            " that there are",
            "make its arrays smaller",
        )
        findings.refuse()


def _schema(archive: Archive, findings: Findings) -> Schema:
    kinds = {
        name: archive.read(name)
        for name, header in archive.headers.items()
        if name.endswith(KIND) and header.dtype.kind == "U" and header.shape == ()
    }
    texts = {name: str(kind) for name, kind in kinds.items() if kind is not None}
    columns = {
        name: header
        for name, header in archive.headers.items()
        if name != PROVENANCE or header.shape != ()
    }
    return read_schema(columns, texts, findings)


def _provenance(archive: Archive, findings: Findings) -> ProvenanceForm | None:
    header = archive.headers.get(PROVENANCE)
    if header is None or header.dtype.kind != "U" or header.shape != ():
        return None
    text = "" if header.dtype.itemsize > _LONGEST_PROVENANCE else str(archive.read(PROVENANCE))
    if not text.startswith("{"):
        return None  # a user's own column of this name
    try:
        return ProvenanceForm.model_validate_json(text)
    except ValidationError:
        problem = "does not say how the pack was converted, as it should"
        findings.about(PROVENANCE, problem, "convert it again, or take the column out")
        return None
