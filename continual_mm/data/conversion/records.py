"""Records as readers give them, on their way into a pack or a store."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.published.report import Record
from continual_mm.data.store.small import write_pack_from
from continual_mm.data.store.writer import write_store
from continual_mm.modality import Kind, Modality, Provenance

DType = Literal["float16", "float32"]

KINDS = {"video": Kind.VECTOR, "audio": Kind.SPECTROGRAM, "text": Kind.TOKENS}
"""The kinds of signal in published clips."""

LOOKED_AT = 1000
"""Records after which a modality that none had counts as missing in all."""

COMPARED = 100
"""Records whose sizes are compared, so that no odd one decides what is right."""


def without_padding(records: Iterable[Record]) -> Iterator[Record]:
    """Records with their sound cut behind its valid frames, of which ``nframes`` tells.

    A sound of no frames keeps one, of zeros: the published program averages over it as well.
    """
    for record in records:
        valid = record.get("nframes")
        sound = record.get("audio")
        kept: Record = {key: value for key, value in record.items() if key != "nframes"}
        if isinstance(valid, int) and isinstance(sound, np.ndarray):
            kept["audio"] = sound[: max(1, valid)]
        yield kept


def layout_of(
    records: Iterable[Record],
    kinds: Mapping[str, Kind],
    source: str,
    *,
    filled: Mapping[str, int] = MappingProxyType({}),
) -> tuple[tuple[Modality, ...], Iterator[Record]]:
    """What the modalities of records are, and all the records.

    Feature sizes are those that are most frequent among the first records.

    Args:
        records: Any number; the first are held while they are looked at, up to a thousand.
        kinds: By modality.
        source: What to call them in complaints.
        filled: Modality -> time that its items are filled up to in reference mode.

    Raises:
        RefusedError: If there is no record, or none of the first thousand has any modality.
    """
    given = iter(records)
    looked: list[Record] = []
    shapes: dict[str, Counter[tuple[int, ...]]] = {name: Counter() for name in kinds}
    for record in given:
        looked.append(record)
        for name, kind in kinds.items():
            if isinstance(values := record.get(name), np.ndarray):
                shapes[name][values.shape[kind.has_length :]] += 1
        if len(looked) >= (COMPARED if all(shapes.values()) else LOOKED_AT):
            break
    found: dict[str, Modality] = {}
    for name, counts in shapes.items():
        for shape, _ in counts.most_common(1):
            time = (filled.get(name, 1),) if kinds[name].has_length else ()
            found[name] = Modality(name, kinds[name], (*time, *shape))
    if not found:
        problem = "has no clip with any modality" if looked else "has no clip that can be read"
        raise RefusedError(Complaint(source, problem, "see what was left out, and why"))
    layout = tuple(found[name] for name in kinds if name in found)
    unknown = kinds.keys() - found.keys()
    kept = (
        {key: value for key, value in record.items() if key not in unknown}
        for record in chain(looked, given)
    )
    return layout, kept


def write(
    records: Iterable[Record],
    target: Path,
    *,
    layout: tuple[Modality, ...],
    dtype: DType,
    left_out: list[Complaint] | None,
    provenance: Provenance | None = None,
) -> None:
    """Write records as a pack if the target ends in ``.npz``, else as a store.

    Args:
        records: Of any number for a store; for a pack as many as fit into memory.
        target: Where to; it must not be there.
        layout: What the items have.
        dtype: In which features are stored.
        left_out: Takes the complaints about faulty records, which then are left out; without it
            they end the writing.
        provenance: How published files were converted into the records.

    Raises:
        RefusedError: If the target is there, and with everything that is wrong with records.
    """
    if target.suffix != ".npz":
        write_store(
            records,
            target,
            layout=layout,
            dtype=dtype,
            left_out=left_out,
            provenance=provenance,
        )
        return
    if target.exists():
        remedy = "remove it, or choose another name"
        raise RefusedError(Complaint(str(target), "is there already", remedy))
    target.parent.mkdir(parents=True, exist_ok=True)
    write_pack_from(
        records, target, layout=layout, dtype=dtype, left_out=left_out, provenance=provenance
    )
