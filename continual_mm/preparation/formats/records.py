"""Records as readers give them, on their way into a pack or a store."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from continual_mm.data import registry
from continual_mm.data.schema import Record
from continual_mm.data.store.form import Layout, Windows, Words, read_form
from continual_mm.data.store.pack_writer import write_pack_from
from continual_mm.data.store.writer import StoreWriter, write_store
from continual_mm.definitions.modality import Kind, Modality, Provenance
from continual_mm.preparation.formats.recipe import Recipe, Report
from continual_mm.preparation.formats.word_vectors import WordVectors
from continual_mm.system.errors import InputError, Problem

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
        source: What to call them in problems.
        filled: Modality -> time that its items are filled up to in reference mode.

    Raises:
        InputError: If there is no record, or none of the first thousand has any modality.
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
        raise InputError(Problem(source, problem, "see what was left out, and why"))
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
    left_out: list[Problem] | None,
    provenance: Provenance | None = None,
) -> None:
    """Write records as a pack if the target ends in ``.npz``, else as a store.

    Args:
        records: Of any number for a store; for a pack as many as fit into memory.
        target: Where to; it must not be there.
        layout: What the items have.
        dtype: In which features are stored.
        left_out: Takes the problems about faulty records, which then are left out; without it
            they end the writing.
        provenance: How published files were converted into the records.

    Raises:
        InputError: If the target is there, and with everything that is wrong with records.
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
        raise InputError(Problem(str(target), "is there already", remedy))
    target.parent.mkdir(parents=True, exist_ok=True)
    write_pack_from(
        records, target, layout=layout, dtype=dtype, left_out=left_out, provenance=provenance
    )


_COLUMNS = ("place", "problem", "remedy")


def write_left_out(problems: Iterable[Problem], path: Path) -> None:
    """Write a CSV with a row for each thing left out: where it was, what is wrong, what to do."""
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(_COLUMNS)
        writer.writerows((one.place, one.message, one.remedy) for one in problems)


def balance(target: Path, report: Report, *, videos: int | None = None) -> tuple[int, int]:
    """How much was kept and how much left out: long videos where there are such, else items.

    Args:
        target: What was written.
        report: Of the reader.
        videos: How many there were to read, where the report counts more than videos.
    """
    if target.is_dir() and (recordings := read_form(target).tables.get("recordings")):
        kept = sum(shard.rows for shard in recordings)
        return kept, (report.tried if videos is None else videos) - kept
    return sum(registry.card(str(target.absolute()), splits=()).items), len(report.skipped)


Floats = NDArray[np.floating[Any]]
Parts = tuple[Floats, Floats, Floats]
"""2D and 3D features and sound of a video, time first."""

COMPARED_VIDEOS = 32
"""Videos whose sizes are compared, so that no odd one decides what is right."""

_2D, _3D, _SOUND = "features_2d", "features_3d", "sound"
"""Columns of the recordings."""


def usual(videos: Iterable[Parts]) -> Parts:
    """The first of some videos whose features are of the sizes that most have."""
    given = tuple(videos)
    ((sizes, _),) = Counter(map(_sizes, given)).most_common(1)
    return next(parts for parts in given if _sizes(parts) == sizes)


def _sizes(parts: Parts) -> tuple[int, ...]:
    return tuple(part.shape[1] for part in parts)


def video_layout(
    features_2d: Floats, features_3d: Floats, sound: Floats, vectors: WordVectors, recipe: Recipe
) -> Layout:
    """What items have: ``video``, the largest values of a window, ``audio`` and ``text``.

    Args:
        features_2d: (2D rows, 2D features) of any of the videos.
        features_3d: (3D rows, 3D features).
        sound: (frames, mels).
        vectors: Of words.
        recipe: How many frames an item has, and whether texts are filled up.
    """
    sizes = {_2D: features_2d.shape[1], _3D: features_3d.shape[1]}
    mels = sound.shape[1]
    heard = Modality("audio", Kind.SPECTROGRAM, (recipe.audio_frames, mels))
    text = Modality("text", Kind.TOKENS, (1, vectors.features))
    return (
        Windows(Modality("video", Kind.VECTOR, (sum(sizes.values()),)), sizes, "max"),
        Windows(heard, {_SOUND: mels}),
        Words(text, vectors.values, blank=recipe.reference),
    )


def written_recording(
    writer: StoreWriter,
    name: str,
    parts: Parts,
    left_out: list[Problem] | None,
) -> int | None:
    """The number of a video's recording; None if it is faulty and left out with its items.

    Args:
        writer: Of the store.
        name: The video's.
        parts: What it is made of.
        left_out: Takes the problems about a faulty one; without it they end the writing.
    """
    try:
        return writer.recording(name, dict(zip((_2D, _3D, _SOUND), parts, strict=True)))
    except InputError as error:
        if left_out is None:
            raise
        left_out.extend(error.problems)
        return None
