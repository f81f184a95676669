"""HowTo100M as AVLnet and MCN keep it: a folder per video, and clips cut out when needed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.pickles.fault import shown
from continual_mm.data.published.captions import CaptionFile, Captions
from continual_mm.data.published.features import read_array
from continual_mm.data.published.places import inside
from continual_mm.data.published.pooling import halves, largest
from continual_mm.data.published.recipe import Mode, Recipe
from continual_mm.data.published.report import Record, Report
from continual_mm.data.published.sound import frames
from continual_mm.data.published.vectors import WordVectors
from continual_mm.data.published.windows import Window, feature_slice, grown, sound_slice
from continual_mm.dice import seed_for

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
        RefusedError: At the first that cannot be read, unless the report skips such.
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
    except RefusedError:
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
    dice = np.random.default_rng(seed_for(seed, "clips", video))
    if mode == "reference":
        return tuple(int(row) for row in dice.integers(count, size=clips))
    rounds = -(-clips // count)
    rows = np.concatenate([dice.permutation(count) for _ in range(rounds)])[:clips]
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


def _seen(video: Video, window: Window, recipe: Recipe) -> Floats | None:
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
        raise RefusedError(Complaint(f"video {name!r}", "is in the list more than once", remedy))
    seen.add(name)
    said = captions.of(name, report)
    for file, what in zip(files, ("2D features", "3D features", "sound"), strict=True):
        if not _is_file(file):
            problem = f"is not there: the {what} of a video that is listed"
            remedy = "it lies in the folder that the list names, and is called after the video"
            place = str(Path(*map(shown, file.parts)))
            raise RefusedError(Complaint(place, problem, remedy))
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
