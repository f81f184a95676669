"""Records of readers, and long videos, written as a pack or a store."""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from continual_mm.data import registry
from continual_mm.data.schema import Record
from continual_mm.data.store.form import Layout, Windows, Words, read_form
from continual_mm.data.store.pack_writer import write_pack_from
from continual_mm.data.store.writer import StoreWriter, store_writer, write_store
from continual_mm.definitions.modality import Kind, Modality, Provenance
from continual_mm.preparation.formats.recipe import Recipe, Report
from continual_mm.preparation.formats.word_vectors import WordVectors
from continual_mm.system.errors import InputError, Problem

DType = Literal["float16", "float32"]

KINDS = {"video": Kind.VECTOR, "audio": Kind.SPECTROGRAM, "text": Kind.TOKENS}
"""The kinds of signal in published clips."""

_HELD = 1000
"""Records after which a modality that none had counts as missing in all."""

_COMPARED = 100
"""Records whose sizes are compared, so that no odd one decides what is right."""


def without_padding(records: Iterable[Record]) -> Iterator[Record]:
    """Records whose spectrograms end with their valid frames, of which there are ``nframes``.

    One of no valid frames keeps one, of zeros: the published program averages over it as well.
    """
    for record in records:
        valid = record.get("nframes")
        audio = record.get("audio")
        kept: Record = {key: value for key, value in record.items() if key != "nframes"}
        if isinstance(valid, int) and isinstance(audio, np.ndarray):
            kept["audio"] = audio[: max(1, valid)]
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
        records: Any number; up to a thousand are held in memory at first.
        kinds: By modality.
        source: What to call them in problems.
        filled: Modality -> time that its items are filled up to in reference mode.

    Raises:
        InputError: If there is no record, or none of the first thousand has any modality.
    """
    given = iter(records)
    first: list[Record] = []
    shapes: dict[str, Counter[tuple[int, ...]]] = {name: Counter() for name in kinds}
    for record in given:
        first.append(record)
        for name, kind in kinds.items():
            if isinstance(values := record.get(name), np.ndarray):
                shapes[name][values.shape[kind.has_length :]] += 1
        if len(first) >= (_COMPARED if all(shapes.values()) else _HELD):
            break
    found: dict[str, Modality] = {}
    for name, counts in shapes.items():
        for shape, _ in counts.most_common(1):
            time = (filled.get(name, 1),) if kinds[name].has_length else ()
            found[name] = Modality(name, kinds[name], (*time, *shape))
    if not found:
        problem = "has no clip with any modality" if first else "has no clip that can be read"
        raise InputError(Problem(source, problem, "see what was left out, and why"))
    layout = tuple(found[name] for name in kinds if name in found)
    unknown = kinds.keys() - found.keys()
    kept = (
        {key: value for key, value in record.items() if key not in unknown}
        for record in chain(first, given)
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
    pack = target.suffix == ".npz"
    if pack and target.exists():
        remedy = "remove it, or choose another name"
        raise InputError(Problem(str(target), "is there already", remedy))
    target.parent.mkdir(parents=True, exist_ok=True)
    write_all: Callable[..., object] = write_pack_from if pack else write_store
    write_all(records, target, layout=layout, dtype=dtype, left_out=left_out, provenance=provenance)


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
"""2D and 3D features and spectrogram of a video, time first."""

_COMPARED_VIDEOS = 32
"""Videos whose sizes are compared, so that no odd one decides what is right."""

_PARTS = ("features_2d", "features_3d", "sound")
"""Columns of the recordings."""


class _Video(Protocol):
    @property
    def name(self) -> str: ...


_AnyVideo = TypeVar("_AnyVideo", bound=_Video)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoStore:
    """A store whose items are windows of videos, and texts of words.

    Items have ``video``, the largest value of each feature in a window, 2D and 3D each brought to
    length 1, ``audio``, a window of the spectrogram, and ``text``.

    Attributes:
        folder: Where to; it must not be there.
        vectors: Of words.
        recipe: How many frames an item has, and whether texts are padded.
        dtype: In which features are stored.
        left_out: Takes the problems of faulty videos and items, which then are left out; without
            it they end the writing.
        provenance: How the videos' files were read, which the store keeps.
    """

    folder: Path
    vectors: WordVectors
    recipe: Recipe
    dtype: DType = "float16"
    left_out: list[Problem] | None = None
    provenance: Provenance | None = None

    @contextmanager
    def written(
        self, videos: Iterable[_AnyVideo], parts: Callable[[_AnyVideo], Parts]
    ) -> Iterator[tuple[StoreWriter, Iterator[tuple[_AnyVideo, int]]]]:
        """A block in which the store is written.

        Args:
            videos: One after the other; all have features of the same sizes, those that are most
                frequent among the first of them.
            parts: What of a video is stored.

        Yields:
            The writer of items, and each stored video with the number of its recording.

        Raises:
            InputError: If there is no video, and with everything that is wrong.
        """
        given = iter(videos)
        first = list(islice(given, _COMPARED_VIDEOS))
        if not first:
            remedy = "see what was left out, and why"
            raise InputError(Problem(str(self.folder), "there is no video to write", remedy))
        sizes = Counter(tuple(part.shape[1] for part in parts(video)) for video in first)
        ((usual, _),) = sizes.most_common(1)
        with store_writer(
            self.folder,
            layout=self._layout(*usual),
            dtype=self.dtype,
            left_out=self.left_out,
            provenance=self.provenance,
        ) as writer:
            yield writer, self._recorded(writer, chain(first, given), parts)

    def _layout(self, size_2d: int, size_3d: int, mels: int) -> Layout:
        key_2d, key_3d, key_audio = _PARTS
        video = Modality("video", Kind.VECTOR, (size_2d + size_3d,))
        audio = Modality("audio", Kind.SPECTROGRAM, (self.recipe.audio_frames, mels))
        text = Modality("text", Kind.TOKENS, (1, self.vectors.features))
        return (
            Windows(video, {key_2d: size_2d, key_3d: size_3d}, "max"),
            Windows(audio, {key_audio: mels}),
            Words(text, self.vectors.values, blank=self.recipe.reference),
        )

    def _recorded(
        self,
        writer: StoreWriter,
        videos: Iterable[_AnyVideo],
        parts: Callable[[_AnyVideo], Parts],
    ) -> Iterator[tuple[_AnyVideo, int]]:
        for video in videos:
            try:
                number = writer.recording(video.name, dict(zip(_PARTS, parts(video), strict=True)))
            except InputError as error:
                if self.left_out is None:
                    raise
                self.left_out.extend(error.problems)
            else:
                yield video, number
