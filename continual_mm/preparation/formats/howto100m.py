"""HowTo100M as AVLnet and MCN keep it: a folder for each video, and clips around its captions."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from math import floor
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TypeGuard

import numpy as np

from continual_mm.data.schema import Record
from continual_mm.data.splits import HeldOut
from continual_mm.data.store.form import Window
from continual_mm.definitions.modality import DatasetCard
from continual_mm.preparation.formats import records
from continual_mm.preparation.formats.features import Floats, inside, read_array
from continual_mm.preparation.formats.pickles import clean_text, load_pickle
from continual_mm.preparation.formats.recipe import Mode, Recipe, skipping
from continual_mm.preparation.formats.word_vectors import WordVectors
from continual_mm.system.errors import InputError, Problems, first_few, printable
from continual_mm.system.reading import read_text

_LATEST = 1e9  # seconds that no video has; NaN is not below it either

_CAPTIONS = "it holds start, end and text, lists of one length: seconds, seconds, words"

_NO_CATEGORY = "None/"  # what the published list puts before the paths of videos without a category


def read_list(
    path: Path, columns: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> tuple[str, ...]:
    """The videos of a path list, as paths below the folder of features.

    Either the column ``path`` names them, or ``video_id`` below its folder, as in HowTo100M's csv;
    ``columns`` says how these are called in the list, if otherwise.
    """
    reader = csv.DictReader(StringIO(read_text(path)))
    theirs = {ours: next(iter(columns.get(ours, (ours,))), "") for ours in ("path", "video_id")}
    if unknown := sorted(columns.keys() - theirs.keys()):
        remedy = "the list has path and video_id"
        raise InputError.at(path, f"nothing is read as {first_few(unknown)}", remedy)
    try:
        names = reader.fieldnames or ()
        rows = list(reader) if set(names).intersection(theirs.values()) else []
    except csv.Error as error:
        raise InputError.at(path, f"cannot be read: {error}") from error
    if not set(names).intersection(theirs.values()):
        named = first_few([printable(column) for column in names]) or "(none)"
        problem = f"has the columns {named}"
        remedy = "one of them must be path or video_id, or be named by --column path=NAME"
        raise InputError.at(path, problem, remedy)
    found = (_listed(row.get(theirs["path"]), row.get(theirs["video_id"])) for row in rows)
    return tuple(filter(str.strip, found))


def _listed(path: str | None, video: str | None) -> str:
    path = (path or "").removeprefix(_NO_CATEGORY)
    if not video or PurePosixPath(path).name in (video, f"{video}.mp4"):
        return str(PurePosixPath(path).with_name(video)) if video else path
    return str(PurePosixPath(path) / video) if path else video


@dataclass(frozen=True, slots=True)
class Captions:
    """The captions of one video, at least one: seconds, no end before its start, and speech."""

    starts: tuple[float, ...]
    ends: tuple[float, ...]
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)


class CaptionFile:
    """A ``.json`` or pickle: video -> lists of start, end and text, checked when asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        raw = _json(path) if path.suffix == ".json" else load_pickle(path)
        if not isinstance(raw, Mapping):
            problem = f"holds a {type(raw).__name__}"
            raise InputError.at(path, problem, "it maps videos to their captions")
        self._raw: Mapping[object, object] = raw

    def __contains__(self, video: object) -> bool:
        return video in self._raw

    def __iter__(self) -> Iterator[str]:
        """The videos' names."""
        return (video for video in self._raw if isinstance(video, str))

    def of(self, video: str, left_out: Problems | None = None) -> Captions:
        """The readable captions of a video, at least one; problems of others go to ``left_out``."""
        place = f"{self.path}, video {video!r}"
        if video not in self._raw:
            raise InputError.at(place, "has no captions", "leave it out of the list")
        entry = self._raw[video]
        if not isinstance(entry, Mapping):
            raise InputError.at(place, f"is a {type(entry).__name__}", _CAPTIONS)
        starts, ends, texts = (_column(entry, key, place) for key in ("start", "end", "text"))
        if not len(starts) == len(ends) == len(texts) or not texts:
            lengths = f"{len(starts)} starts, {len(ends)} ends and {len(texts)} texts"
            raise InputError.at(place, f"has {lengths}", _CAPTIONS)
        kept, broken = _checked(starts, ends, texts)
        for problem, rows in broken.items():
            with skipping(left_out):
                captions = f"{place}, captions {first_few(rows)}"
                raise InputError.at(captions, problem, _CAPTIONS)
        if not kept:
            raise InputError.at(place, "has no caption that can be read", _CAPTIONS)
        return Captions(*zip(*kept, strict=True))


def _json(path: Path) -> object:
    text = read_text(path, most=None)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError.at(path, f"is no JSON ({error})", "copy or write it again") from error


def _column(entry: Mapping[object, object], key: str, place: str) -> Sequence[object]:
    values = entry.get(key)
    if isinstance(values, np.ndarray) and values.ndim == 1:
        values = values.tolist()
    if not isinstance(values, list | tuple):
        problem = f"has no list {key!r}" if key in entry else f"has no {key!r}"
        raise InputError.at(place, problem, _CAPTIONS)
    return values


def _checked(
    starts: Sequence[object], ends: Sequence[object], texts: Sequence[object]
) -> tuple[list[tuple[float, float, str]], dict[str, list[str]]]:
    """Start, end and text of each caption that can be read; problem -> rows of the others."""
    kept: list[tuple[float, float, str]] = []
    broken: dict[str, list[str]] = {}
    for row, (start, end, text) in enumerate(zip(starts, ends, texts, strict=True)):
        if not _is_time(start):
            problem = "'start' is no finite number of seconds"
        elif not _is_time(end):
            problem = "'end' is no finite number of seconds"
        elif not isinstance(text, str):
            problem = f"'text' is no text ({type(text).__name__})"
        elif end < start:
            problem = "they end before they start"
        else:
            kept.append((float(start), float(end), clean_text(text)))
            continue
        broken.setdefault(problem, []).append(str(row))
    return kept, broken


def _is_time(value: object) -> TypeGuard[float]:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return bool(-_LATEST < value < _LATEST)


SAMPLE_RATE, HOP, FOURIER = 16_000, 160, 400
"""Of the published spectrograms: samples per second, from frame to frame, and per frame."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip of a video: seconds, and the captions inside in the order in which it took them in."""

    start: float
    end: float
    captions: tuple[int, ...]

    def ordered_captions(self, mode: Mode) -> tuple[int, ...]:
        """The captions in the order of their words: in ``robust`` that of time.

        The published program appends each caption it takes in, also one before the chosen.
        """
        return self.captions if mode == "reference" else tuple(sorted(self.captions))


def grown(starts: Sequence[float], ends: Sequence[float], chosen: int, *, min_time: float) -> Clip:
    """Grow a window around a chosen caption until it has ``min_time`` seconds or holds them all.

    Of the captions before and after it takes in the one that makes the shorter window, the one
    before if both do.

    >>> grown([0, 4, 9], [3, 8, 20], 1, min_time=7)
    Clip(start=0, end=8, captions=(1, 0))
    """
    first = last = chosen
    start, end, taken = starts[chosen], ends[chosen], [chosen]
    while end - start < min_time:
        before, after = first > 0, last + 1 < len(starts)
        if not (before or after):
            break
        if before and (not after or end - starts[first - 1] <= ends[last + 1] - start):
            first -= 1
            start = starts[first]
            taken.append(first)
        else:
            last += 1
            end = ends[last]
            taken.append(last)
    return Clip(start, end, tuple(taken))


def feature_slice(window: Clip, *, rate: float, mode: Mode) -> slice:
    """The rows of features, ``rate`` a second, that lie in a window, that of its end included.

    ``reference`` counts a negative start from the end, as Python does; ``robust`` reads it as 0.
    """
    begin, end = int(window.start * rate), int(window.end * rate) + 1
    return slice(begin, end) if mode == "reference" else slice(max(0, begin), max(0, end))


def frame_at(seconds: float) -> int:
    """The spectrogram frame at a time; negative in the first 12.5 ms."""
    return floor((int(seconds * SAMPLE_RATE) - FOURIER // 2) / HOP)


def audio_slice(window: Clip, *, mode: Mode) -> slice:
    """The spectrogram frames that lie in a window.

    In ``reference`` a window that starts in the first 12.5 ms begins at frame -2 or -1, counted
    from the end, so that nothing is left of it; in ``robust`` it begins at frame 0.
    """
    begin, end = frame_at(window.start), frame_at(window.end)
    return slice(begin, end) if mode == "reference" else slice(max(0, begin), max(0, end))


@dataclass(frozen=True, slots=True, eq=False)
class Video(records.Video):
    """A long video and its transcribed speech."""

    captions: Captions


def videos(
    paths: Iterable[str],
    captions: CaptionFile,
    *,
    features: Path,
    audio: Path | None = None,
    left_out: Problems | None = None,
) -> Iterator[Video]:
    """Read videos one by one, in the order of the path list.

    Their files are ``PATH/ID_2d.npz``, ``_3d`` and ``_spec``, the last in the folder of audio if it
    is given. ``left_out`` takes the problems of videos, and of single captions, that cannot be read
    or are named again; without it they are raised.
    """
    seen: set[str] = set()
    for path in paths:
        with skipping(left_out):
            files = _files(path, features, features if audio is None else audio)
            name = PurePosixPath(path).name
            if name in seen:
                problem, remedy = "is in the list more than once", "name each video once"
                raise InputError.at(f"video {name!r}", problem, remedy)
            seen.add(name)
            yield _video(name, files, captions.of(name, left_out))


def is_there(path: str, captions: CaptionFile, *, features: Path, audio: Path) -> bool:
    """Whether a video has captions and its three files; none of them is opened."""
    try:
        files = _files(path, features, audio)
    except InputError:
        return False
    return PurePosixPath(path).name in captions and all(map(_is_file, files))


def _files(path: str, features: Path, audio: Path) -> tuple[Path, Path, Path]:
    """A video's 2D features, 3D features and spectrogram, whether or not they are there."""
    name = PurePosixPath(path).name
    first, second = (inside(features, f"{path}/{name}_{kind}.npz") for kind in ("2d", "3d"))
    return first, second, inside(audio, f"{path}/{name}_spec.npz")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for any file
        return False


def _video(name: str, files: tuple[Path, Path, Path], captions: Captions) -> Video:
    for file, what in zip(files, ("2D features", "3D features", "spectrogram"), strict=True):
        if not _is_file(file):
            problem = f"is not there: the {what} of a video that is listed"
            remedy = "it lies in the folder that the list names, and is called after the video"
            raise InputError.at(str(Path(*map(printable, file.parts))), problem, remedy)
    first, second = (read_array(one, "features") for one in files[:2])
    return Video(name, first, second, read_array(files[2], "arr_0", axis=0), captions)


def write_videos(
    videos: Iterable[Video], store: records.VideoStore, held_out: HeldOut
) -> DatasetCard:
    """Write a store with an item for every caption of some videos.

    A window is grown around the caption, see :func:`grown`; the text is the captions inside, the
    group the video. In ``reference`` a caption in the first 12.5 ms has one frame of 0 dB as its
    audio, and texts are padded with a word of zeros; in ``robust`` what is missing is left out.
    """

    def audio(video: Video) -> Floats:
        frames = video.spectrogram.T
        if not store.recipe.reference:
            return frames
        # The audio of clips without any; 0 dB, with which the published program pads.
        silence = np.zeros((1, frames.shape[1]), dtype=frames.dtype)
        return np.concatenate([frames, silence])

    with store.written(videos, audio) as (writer, recorded):
        for video, number in recorded:
            for record in _items(video, number, store.vectors, store.recipe):
                writer.item(record | {"split": held_out.split(video.name)})
        return writer.finish()


def _items(video: Video, number: int, vectors: WordVectors, recipe: Recipe) -> Iterator[Record]:
    captions = video.captions
    for caption in range(len(captions)):
        clip = grown(captions.starts, captions.ends, caption, min_time=recipe.min_time)
        text = " ".join(captions.texts[row] for row in clip.ordered_captions(recipe.mode))
        parts: Record = {
            "video": _video_window(video, number, clip, recipe),
            "audio": _audio_window(video, number, clip, recipe),
            "text": vectors.stored(text, recipe),
        }
        yield {
            "ids": f"{video.name}/{caption}",
            "group": video.name,
            "text_raw": text,
            **{name: part for name, part in parts.items() if part is not None},
        }


def _video_window(video: Video, number: int, clip: Clip, recipe: Recipe) -> Window | None:
    streams = ((video.features_2d, recipe.rate_2d), (video.features_3d, recipe.rate_3d))
    spans = tuple(
        _span(feature_slice(clip, rate=rate, mode=recipe.mode), len(rows)) for rows, rate in streams
    )
    empty = all(begin == end for begin, end in spans)
    return None if empty and not recipe.reference else Window(number, spans)


def _audio_window(video: Video, number: int, clip: Clip, recipe: Recipe) -> Window | None:
    frames = video.spectrogram.shape[1]
    begin, end = _span(audio_slice(clip, mode=recipe.mode), frames)
    if begin < end and (recipe.reference or video.spectrogram[:, begin:end].any()):
        return Window(number, ((begin, end),))
    return Window(number, ((frames, frames + 1),)) if recipe.reference else None


def _span(part: slice, steps: int) -> tuple[int, int]:
    """A slice of so many steps as (begin, end), the same for all that are empty."""
    begin, end, _ = part.indices(steps)
    return (begin, end) if begin < end else (0, 0)
