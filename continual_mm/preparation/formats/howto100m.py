"""HowTo100M as AVLnet and MCN keep it: a folder per video, and clips cut out when needed."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from math import floor
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.schema import Record
from continual_mm.data.splits import HeldOut
from continual_mm.data.store.form import Window
from continual_mm.data.store.writer import store_writer
from continual_mm.definitions.modality import DatasetCard, Provenance
from continual_mm.preparation.formats.features import frames, halves, inside, largest, read_array
from continual_mm.preparation.formats.machine.fault import shown
from continual_mm.preparation.formats.machine.unpickling import load_pickle
from continual_mm.preparation.formats.recipe import Mode, Recipe, Report
from continual_mm.preparation.formats.records import (
    COMPARED_VIDEOS,
    DType,
    Parts,
    usual,
    video_layout,
    written_recording,
)
from continual_mm.preparation.formats.word_vectors import WordVectors, written
from continual_mm.system.errors import InputError, Problem, first_few
from continual_mm.system.seeds import seed_for

_LATEST = 1e9
"""Seconds that no video has; NaN is not below it either."""

_FORM = "it holds start, end and text, lists of one length: seconds, seconds, words"


@dataclass(frozen=True, slots=True, eq=False)
class Captions:
    """The captions of one video; there is at least one.

    Attributes:
        starts: (captions,) seconds.
        ends: (captions,) seconds, none before its start.
        texts: What is said.
    """

    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)


class CaptionFile:
    """The captions of many videos, checked video by video when they are asked for."""

    def __init__(self, path: Path) -> None:
        """Read a file of captions.

        Args:
            path: ``.json``, or a pickle: video -> start, end and text, each a list; or a frame of
                pandas with these columns.

        Raises:
            InputError: If it cannot be opened, or is no such file.
        """
        self.path = path
        raw = _json(path) if path.suffix == ".json" else load_pickle(path)
        if not isinstance(raw, Mapping):
            problem = f"holds a {type(raw).__name__}"
            raise InputError(Problem(str(path), problem, "it maps videos to their captions"))
        self._raw: Mapping[object, object] = raw

    def __len__(self) -> int:
        return len(self._raw)

    def __contains__(self, video: object) -> bool:
        return video in self._raw

    def __iter__(self) -> Iterator[str]:
        """The videos' names."""
        return (video for video in self._raw if isinstance(video, str))

    def of(self, video: str, report: Report | None = None) -> Captions:
        """The captions of one video.

        Args:
            video: Its name.
            report: Lists captions that are broken one by one, if it skips such; without one they
                end the reading as well.

        Raises:
            InputError: If it has none, or if these are not as they should be.
        """
        place = f"{self.path}, video {video!r}"
        if video not in self._raw:
            raise InputError(Problem(place, "has no captions", "leave it out of the list"))
        entry = self._raw[video]
        if not isinstance(entry, Mapping):
            raise InputError(Problem(place, f"is a {type(entry).__name__}", _FORM))
        starts, ends, texts = (_column(entry, key, place) for key in ("start", "end", "text"))
        if not len(starts) == len(ends) == len(texts) or not texts:
            lengths = f"{len(starts)} starts, {len(ends)} ends and {len(texts)} texts"
            raise InputError(Problem(place, f"has {lengths}", _FORM))
        broken = _broken(starts, ends, texts)
        for problem in dict.fromkeys(broken.values()):
            rows = [row for row, found in broken.items() if found == problem]
            named = first_few([str(row) for row in rows])
            (report or Report()).leave_out(Problem(f"{place}, captions {named}", problem, _FORM))
        kept = [row for row in range(len(texts)) if row not in broken]
        if not kept:
            raise InputError(Problem(place, "has no caption that can be read", _FORM))
        first, last = (np.array([each[row] for row in kept], np.float64) for each in (starts, ends))
        said = (texts[row] for row in kept)
        return Captions(first, last, tuple(written(one) for one in said if isinstance(one, str)))


def _json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        problem = f"cannot be opened: {error.strerror or error}"
        raise InputError(Problem(str(path), problem)) from error
    except (ValueError, RecursionError) as error:
        problem = f"is no JSON ({error})"
        raise InputError(Problem(str(path), problem, "copy or write it again")) from error


def _column(entry: Mapping[object, object], key: str, place: str) -> Sequence[object]:
    values = entry.get(key)
    if isinstance(values, np.ndarray) and values.ndim == 1:
        values = values.tolist()
    if not isinstance(values, list | tuple):
        problem = f"has no list {key!r}" if key in entry else f"has no {key!r}"
        raise InputError(Problem(place, problem, _FORM))
    return values


def _broken(
    starts: Sequence[object], ends: Sequence[object], texts: Sequence[object]
) -> dict[int, str]:
    """What is wrong with captions, by their rows."""
    found: dict[int, str] = {}
    for row, (start, end, text) in enumerate(zip(starts, ends, texts, strict=True)):
        if not _is_time(start):
            found[row] = "'start' is no finite number of seconds"
        elif not _is_time(end):
            found[row] = "'end' is no finite number of seconds"
        elif not isinstance(text, str):
            found[row] = f"'text' is no text ({type(text).__name__})"
        elif end < start:
            found[row] = "they end before they start"
    return found


def _is_time(value: object) -> TypeGuard[float]:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return bool(-_LATEST < value < _LATEST)


SAMPLE_RATE, HOP, FOURIER = 16_000, 160, 400
"""Of the published spectrograms: samples per second, from frame to frame, and per frame."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip of a video.

    Attributes:
        start: Seconds.
        end: Seconds.
        captions: The captions inside, in the order in which the window took them in.
    """

    start: float
    end: float
    captions: tuple[int, ...]

    def told(self, mode: Mode) -> tuple[int, ...]:
        """The captions in the order of their words.

        The published program appends the words of each caption it takes in, so that what is said
        before the chosen caption stands behind it (``reference``); ``robust`` keeps the order in
        which they are said.
        """
        return self.captions if mode == "reference" else tuple(sorted(self.captions))


def grown(starts: Sequence[float], ends: Sequence[float], chosen: int, *, min_time: float) -> Clip:
    """Grow a window around one caption until it is long enough or holds them all.

    Of the captions before and after it takes in the one that makes the shorter window, the one
    before if both do.

    Args:
        starts: Seconds at which the captions of a video start.
        ends: Seconds at which they end.
        chosen: The caption to begin with.
        min_time: Seconds at which the window is long enough.

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
    """The rows of features that lie in a window, the row in which it ends included.

    Args:
        window: The clip.
        rate: Rows per second.
        mode: ``robust`` reads a start before the video's as the video's; ``reference`` counts a
            negative one from the end, as Python does.

    >>> feature_slice(Clip(2.5, 4.0, ()), rate=1.5, mode="robust")
    slice(3, 7, None)
    """
    begin, end = int(window.start * rate), int(window.end * rate) + 1
    return slice(begin, end) if mode == "reference" else slice(max(0, begin), max(0, end))


def frame_at(seconds: float) -> int:
    """The spectrogram frame at a time; negative in the first 12.5 ms.

    >>> frame_at(0.0), frame_at(1.0)
    (-2, 98)
    """
    return floor((int(seconds * SAMPLE_RATE) - FOURIER // 2) / HOP)


def sound_slice(window: Clip, *, mode: Mode) -> slice:
    """The spectrogram frames that lie in a window.

    Args:
        window: The clip.
        mode: In ``reference`` a window that starts in the video's first 12.5 ms begins at frame -2
            or -1, counted from the end, so that nothing is left of it; in ``robust`` it begins at
            frame 0.

    >>> sound_slice(Clip(0.0, 1.0, ()), mode="reference")
    slice(-2, 98, None)
    >>> sound_slice(Clip(0.0, 1.0, ()), mode="robust")
    slice(0, 98, None)
    """
    begin, end = frame_at(window.start), frame_at(window.end)
    return slice(begin, end) if mode == "reference" else slice(max(0, begin), max(0, end))


Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Video:
    """A long video.

    Attributes:
        name: The last part of its path: YouTube's id.
        features_2d: (2D rows, 2D features), one row a second.
        features_3d: (3D rows, 3D features), 1.5 rows a second.
        sound: (mels, frames) in dB below the loudest, 100 frames a second.
        captions: What is said.
    """

    name: str
    features_2d: Floats
    features_3d: Floats
    sound: Floats
    captions: Captions


def videos(
    paths: Iterable[str],
    captions: CaptionFile,
    *,
    features: Path,
    audio: Path | None = None,
    report: Report,
) -> Iterator[Video]:
    """Read videos one by one.

    Args:
        paths: As the path list names them, below the folders.
        captions: Of all the videos.
        features: The folder in which ``PATH/ID_2d.npz`` and ``PATH/ID_3d.npz`` lie.
        audio: The folder in which ``PATH/ID_spec.npz`` lie; the same, if None.
        report: Lists the videos left out because a file is missing or broken, or because they are
            named again, and single captions that are.

    Yields:
        The videos that can be read, in the order of the list.

    Raises:
        InputError: At the first that cannot be read, unless the report skips such.
    """
    sounds = features if audio is None else audio
    seen: set[str] = set()
    for path in paths:
        video = None
        with report.item():
            video = _video(path, captions, features, sounds, seen, report)
        if video is not None:
            yield video


def is_there(path: str, captions: CaptionFile, *, features: Path, audio: Path) -> bool:
    """Whether a video has captions and its three files; none of them is opened."""
    try:
        files = _files(path, features, audio)
    except InputError:
        return False
    return PurePosixPath(path).name in captions and all(map(_is_file, files))


def chosen_captions(
    count: int, clips: int, *, video: str, seed: int, mode: Mode
) -> tuple[int, ...]:
    """Choose captions to grow clips from, by dice that belong to this video and this seed.

    Args:
        count: How many captions the video has.
        clips: How many clips are wanted.
        video: The video's name.
        seed: Of the choice; with another one, for instance per epoch, the choice is another.
        mode: ``reference`` chooses each caption independently, so that some come twice; ``robust``
            none twice before all came once.
    """
    rng = np.random.default_rng(seed_for(seed, "clips", video))
    if mode == "reference":
        return tuple(int(row) for row in rng.integers(count, size=clips))
    rounds = -(-clips // count)
    rows = np.concatenate([rng.permutation(count) for _ in range(rounds)])[:clips]
    return tuple(int(row) for row in rows)


def clips(
    video: Video,
    chosen: Sequence[int],
    vectors: WordVectors,
    recipe: Recipe,
    *,
    split: int = 0,
) -> Iterator[Record]:
    """Cut clips out of a video, one around each of the chosen captions.

    Args:
        video: The video.
        chosen: Rows of its captions; one that comes again makes a clip with a number in its name.
        vectors: Of words.
        recipe: In ``reference`` sound and text are filled up with zeros, a clip that starts in the
            first 12.5 ms has no sound, what is missing is zeros, and ``nframes`` says how many
            frames of sound there were; in ``robust`` each has its own length, and what is missing
            is left out.
        split: 0 for training, 1 for validation, 2 for test.

    Yields:
        Records with ``video`` (2D features + 3D features,), ``audio`` (frames, mels) and ``text``
        (words, features), ``text_raw``, and ``group``, the video's name.
    """
    times: dict[int, int] = {}
    for caption in chosen:
        times[caption] = times.get(caption, 0) + 1
        again = f"+{times[caption] - 1}" if times[caption] > 1 else ""
        record: Record = {"ids": f"{video.name}/{caption}{again}", "split": split}
        yield record | {"group": video.name} | _clip(video, caption, vectors, recipe)


def _clip(video: Video, caption: int, vectors: WordVectors, recipe: Recipe) -> Record:
    said, mode = video.captions, recipe.mode
    starts, ends = said.starts.tolist(), said.ends.tolist()
    window = grown(starts, ends, caption, min_time=recipe.min_time)
    text = " ".join(said.texts[row] for row in window.told(mode))
    sound = video.sound[:, sound_slice(window, mode=mode)]
    parts: Record = {
        "video": _seen(video, window, recipe),
        "audio": frames(sound, recipe.audio_frames, mode=mode),
        "text": vectors.of(text, recipe),
    }
    record = {name: part for name, part in parts.items() if part is not None}
    if recipe.reference:
        record["nframes"] = sound.shape[1]
    return record | {"text_raw": text}


def _seen(video: Video, window: Clip, recipe: Recipe) -> Floats | None:
    streams = ((video.features_2d, recipe.rate_2d), (video.features_3d, recipe.rate_3d))
    first, second = (
        largest(rows[feature_slice(window, rate=rate, mode=recipe.mode)]) for rows, rate in streams
    )
    sizes = (video.features_2d.shape[1], video.features_3d.shape[1])
    return halves(first, second, sizes=sizes, mode=recipe.mode)


def _video(
    path: str,
    captions: CaptionFile,
    features: Path,
    sounds: Path,
    seen: set[str],
    report: Report,
) -> Video:
    name = PurePosixPath(path).name
    files = _files(path, features, sounds)
    if name in seen:
        remedy = "name each video once"
        raise InputError(Problem(f"video {name!r}", "is in the list more than once", remedy))
    seen.add(name)
    said = captions.of(name, report)
    for file, what in zip(files, ("2D features", "3D features", "sound"), strict=True):
        if not _is_file(file):
            problem = f"is not there: the {what} of a video that is listed"
            remedy = "it lies in the folder that the list names, and is called after the video"
            place = str(Path(*map(shown, file.parts)))
            raise InputError(Problem(place, problem, remedy))
    first, second = (read_array(one, "features") for one in files[:2])
    sound = read_array(files[2], "arr_0", axis=0)
    return Video(name, first, second, sound, said)


def _files(path: str, features: Path, sounds: Path) -> tuple[Path, Path, Path]:
    """A video's 2D features, 3D features and sound, whether or not they are there."""
    name = PurePosixPath(path).name
    first, second = (inside(features, f"{path}/{name}_{kind}.npz") for kind in ("2d", "3d"))
    return first, second, inside(sounds, f"{path}/{name}_spec.npz")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for any file
        return False


def write_videos(
    videos: Iterable[Video],
    folder: Path,
    *,
    vectors: WordVectors,
    recipe: Recipe,
    held_out: HeldOut,
    dtype: DType = "float16",
    left_out: list[Problem] | None = None,
    provenance: Provenance | None = None,
) -> DatasetCard:
    """Write a store with an item for every caption of some videos.

    An item's window is grown around its caption, see
    :func:`grown`. Its video is the largest value of each
    feature in the window, 2D and 3D each brought to length 1; its sound is the window of the
    spectrogram; its text the known words of the captions inside. ``group`` is the video.

    Args:
        videos: One after the other; all have features of the same sizes, those that are most
            frequent among the first of them.
        folder: Where to; it must not be there.
        vectors: Of words.
        recipe: In ``reference`` a caption in the first 12.5 ms has one frame of 0 dB for its sound,
            and a text is filled up with a word of zeros; in ``robust`` what is missing is left out.
        held_out: Which videos are for validation and test.
        dtype: In which features are stored.
        left_out: Takes the problems about faulty videos and items, which then are left out;
            without it they end the writing.
        provenance: How the videos' files were read, which the store keeps.

    Raises:
        InputError: With everything that is wrong.
    """
    given = iter(videos)
    first = list(islice(given, COMPARED_VIDEOS))
    if not first:
        remedy = "see what was left out, and why"
        raise InputError(Problem(str(folder), "there is no video to write", remedy))
    layout = video_layout(*usual(_recording(video, recipe) for video in first), vectors, recipe)
    with store_writer(
        folder, layout=layout, dtype=dtype, left_out=left_out, provenance=provenance
    ) as writer:
        for video in chain(first, given):
            number = written_recording(writer, video.name, _recording(video, recipe), left_out)
            if number is None:
                continue
            for record in _items(video, number, vectors, recipe):
                writer.item(record | {"split": held_out.split(video.name)})
        return writer.finish()


def _recording(video: Video, recipe: Recipe) -> Parts:
    sound = video.sound.T
    if recipe.reference:
        # What clips without sound have; 0 dB, as the published program fills up with.
        sound = np.concatenate([sound, np.zeros((1, sound.shape[1]), dtype=sound.dtype)])
    return video.features_2d, video.features_3d, sound


def _items(video: Video, number: int, vectors: WordVectors, recipe: Recipe) -> Iterator[Record]:
    said = video.captions
    starts, ends = said.starts.tolist(), said.ends.tolist()
    for caption in range(len(said)):
        clip = grown(starts, ends, caption, min_time=recipe.min_time)
        text = " ".join(said.texts[row] for row in clip.told(recipe.mode))
        parts: Record = {
            "video": _seen_video(video, number, clip, recipe),
            "audio": _heard(video, number, clip, recipe),
            "text": vectors.stored(text, recipe),
        }
        yield {
            "ids": f"{video.name}/{caption}",
            "group": video.name,
            "text_raw": text,
            **{name: part for name, part in parts.items() if part is not None},
        }


def _seen_video(video: Video, number: int, clip: Clip, recipe: Recipe) -> Window | None:
    streams = ((video.features_2d, recipe.rate_2d), (video.features_3d, recipe.rate_3d))
    spans = tuple(
        _span(feature_slice(clip, rate=rate, mode=recipe.mode), len(rows)) for rows, rate in streams
    )
    empty = all(begin == end for begin, end in spans)
    return None if empty and not recipe.reference else Window(number, spans)


def _heard(video: Video, number: int, clip: Clip, recipe: Recipe) -> Window | None:
    frames = video.sound.shape[1]
    begin, end = _span(sound_slice(clip, mode=recipe.mode), frames)
    if begin < end and (recipe.reference or video.sound[:, begin:end].any()):
        return Window(number, ((begin, end),))
    return Window(number, ((frames, frames + 1),)) if recipe.reference else None


def _span(part: slice, steps: int) -> tuple[int, int]:
    """A slice of so many steps as (begin, end), the same for all that are empty."""
    begin, end, _ = part.indices(steps)
    return (begin, end) if begin < end else (0, 0)
