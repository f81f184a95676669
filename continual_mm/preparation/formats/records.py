"""Records of readers, and long videos, written as a pack or a store."""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from continual_mm.data.schema import Record
from continual_mm.data.store.form import Windows, Words
from continual_mm.data.store.pack_writer import write_pack_from
from continual_mm.data.store.writer import StoreWriter, store_writer, write_store
from continual_mm.definitions.modality import Kind, Modality, Provenance
from continual_mm.preparation.formats.features import Floats
from continual_mm.preparation.formats.recipe import Recipe, skipping
from continual_mm.preparation.formats.word_vectors import WordVectors
from continual_mm.system.errors import InputError, Problem, Problems
from continual_mm.system.files import atomic_write

DType = Literal["float16", "float32"]

_HELD = 1000  # records after which a modality that none had counts as missing in all
_COMPARED = 100  # records whose sizes are compared, so that no odd one decides what is right


def write(
    records: Iterable[Record],
    target: Path,
    expected: Mapping[str, Kind] | Sequence[Modality],
    *,
    dtype: DType,
    left_out: Problems | None,
    audio_frames: int = 1,
    provenance: Provenance | None = None,
) -> None:
    """Write records as a new pack, in memory, if the target ends in ``.npz``, else as a store.

    What is ``expected`` by its kind alone has the sizes that are most frequent among the first
    records, of which up to a thousand are in memory, and is left out if none of them has it.
    ``left_out`` takes faulty ones. Spectrograms get ``audio_frames`` at least.
    """
    given: Iterator[Record] = map(_without_padding, records)
    if isinstance(expected, Mapping):
        layout, given = _sized(given, expected, target, audio_frames)
    else:
        layout = tuple(expected)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_all: Callable[..., object] = write_pack_from if target.suffix == ".npz" else write_store
    how = {"dtype": dtype, "left_out": left_out, "provenance": provenance}
    write_all(given, target, layout=layout, **how)


def _sized(
    given: Iterator[Record], kinds: Mapping[str, Kind], target: Path, audio_frames: int
) -> tuple[tuple[Modality, ...], Iterator[Record]]:
    """What the first records have, and all records with nothing else."""
    first: list[Record] = []
    shapes: dict[str, Counter[tuple[int, ...]]] = {name: Counter() for name in kinds}
    for record in given:
        first.append(record)
        for name, kind in kinds.items():
            if isinstance(values := record.get(name), np.ndarray):
                shapes[name][values.shape[kind.has_length :]] += 1
        if len(first) >= (_COMPARED if all(shapes.values()) else _HELD):
            break
    layout = []
    for name, counts in shapes.items():
        for shape, _ in counts.most_common(1):
            time = (audio_frames if name == "audio" else 1,) if kinds[name].has_length else ()
            layout.append(Modality(name, kinds[name], (*time, *shape)))
    if not layout:
        problem = "has no clip with any modality" if first else "has no clip that can be read"
        raise InputError.at(target, problem, "see what was left out, and why")
    unknown = kinds.keys() - {modality.name for modality in layout}
    kept = (
        {key: value for key, value in record.items() if key not in unknown}
        for record in chain(first, given)
    )
    return tuple(layout), kept


def _without_padding(record: Record) -> Record:
    """The record with its ``nframes`` valid frames; one frame if none is, as published."""
    kept = dict(record)
    valid, audio = kept.pop("nframes", None), kept.get("audio")
    if isinstance(valid, int) and isinstance(audio, np.ndarray):
        kept["audio"] = audio[: max(1, valid)]
    return kept


_COLUMNS = ("place", "problem", "remedy")


def write_left_out(problems: Iterable[Problem], path: Path) -> None:
    """Write a CSV with a row for each thing left out: where it was, what is wrong, what to do."""
    with (
        atomic_write(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(_COLUMNS)
        writer.writerows((one.place, one.message, one.remedy) for one in problems)


@dataclass(frozen=True, slots=True, eq=False)
class Video:
    """A long video."""

    name: str  # YouTube's id
    features_2d: Floats  # (2D rows, 2D features), one row a second
    features_3d: Floats  # (3D rows, 3D features), evenly over the video, in HowTo100M 1.5 a second
    spectrogram: Floats  # (mels, frames) in dB below the loudest, 100 frames a second


_AnyVideo = TypeVar("_AnyVideo", bound=Video)

_COMPARED_VIDEOS = 32  # videos whose sizes are compared, so that no odd one decides what is right
_PARTS = ("features_2d", "features_3d", "sound")  # columns of the recordings


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoStore:
    """A new store whose items are windows of videos, and texts of words.

    ``video`` is the largest value of each feature in a window, 2D and 3D each brought to length 1;
    ``audio`` a window of the spectrogram. ``left_out`` takes faulty videos and items.
    """

    folder: Path
    vectors: WordVectors
    recipe: Recipe
    dtype: DType = "float16"
    left_out: Problems | None = None
    provenance: Provenance | None = None

    @contextmanager
    def written(
        self, videos: Iterable[_AnyVideo], audio: Callable[[_AnyVideo], Floats]
    ) -> Iterator[tuple[StoreWriter, Iterator[tuple[_AnyVideo, int]]]]:
        """The writer of items, and each stored video with its recording's number.

        Videos must have the most frequent feature sizes; ``audio`` gives (frames, mels) to store.
        """
        given = iter(videos)
        first = list(islice(given, _COMPARED_VIDEOS))
        if not first:
            remedy = "see what was left out, and why"
            raise InputError.at(self.folder, "there is no video to write", remedy)

        def parts(video: _AnyVideo) -> dict[str, Floats]:
            values = (video.features_2d, video.features_3d, audio(video))
            return dict(zip(_PARTS, values, strict=True))

        def recorded(writer: StoreWriter) -> Iterator[tuple[_AnyVideo, int]]:
            for video in chain(first, given):
                with skipping(self.left_out):
                    yield video, writer.recording(video.name, parts(video))

        sizes = Counter(tuple(one.shape[1] for one in parts(video).values()) for video in first)
        (((size_2d, size_3d, mels), _),) = sizes.most_common(1)
        key_2d, key_3d, key_audio = _PARTS
        clip = Modality("video", Kind.VECTOR, (size_2d + size_3d,))
        spectrogram = Modality("audio", Kind.SPECTROGRAM, (self.recipe.audio_frames, mels))
        text = Modality("text", Kind.TOKENS, (1, self.vectors.features))
        layout = (
            Windows(clip, {key_2d: size_2d, key_3d: size_3d}, "max"),
            Windows(spectrogram, {key_audio: mels}),
            Words(text, self.vectors.values, blank=self.recipe.reference),
        )
        with store_writer(
            self.folder,
            layout=layout,
            dtype=self.dtype,
            left_out=self.left_out,
            provenance=self.provenance,
        ) as writer:
            yield writer, recorded(writer)
