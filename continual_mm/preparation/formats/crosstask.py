"""CrossTask as it is released: tasks of several steps, and videos that show them."""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType

import numpy as np

from continual_mm.data.cards import steps_of
from continual_mm.data.schema import Record
from continual_mm.data.store.form import Window
from continual_mm.data.store.writer import store_writer
from continual_mm.definitions.modality import DatasetCard, Provenance
from continual_mm.preparation.formats.features import LOUDEST, QUIETEST, inside, read_array
from continual_mm.preparation.formats.howto100m import HOP, SAMPLE_RATE
from continual_mm.preparation.formats.recipe import Recipe, Report
from continual_mm.preparation.formats.records import (
    COMPARED_VIDEOS,
    DType,
    Floats,
    usual,
    video_layout,
    written_recording,
)
from continual_mm.preparation.formats.word_vectors import WordVectors, written
from continual_mm.system.errors import InputError, Problem

Told = Sequence[tuple[str, Sequence[str]]]
"""Place and cells of the lines of a file."""

_LINES = ("its id", "its name", "its url", "how many steps it has", "the steps")
"""Of a task, one below the other; empty lines stand between tasks."""


@dataclass(frozen=True, slots=True)
class Task:
    """Something that is done in steps.

    Attributes:
        name: Its id, a number on wikiHow.
        title: What is done.
        steps: What the steps are called, in their order.
    """

    name: str
    title: str
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """A time at which a video shows a step of a task.

    Attributes:
        step: Counted from 1.
        start: In seconds.
        end: In seconds, later than the start and not behind the end of the video.
    """

    step: int
    start: float
    end: float


@dataclass(frozen=True, slots=True, eq=False)
class Video:
    """A video and what it shows.

    Attributes:
        name: YouTube's id.
        features_2d: (seconds, 2D features), at least one second.
        features_3d: (3D rows, 3D features), evenly over the video.
        sound: (mels, frames) in dB below the loudest, 100 frames a second.
        shown: Task -> when which of its steps is shown; most videos have one task.
    """

    name: str
    features_2d: Floats
    features_3d: Floats
    sound: Floats
    shown: Mapping[str, tuple[Shown, ...]]


def read_tasks(path: Path) -> Mapping[str, Task]:
    """Read ``tasks_primary.txt``: five lines for each task, and empty ones between tasks.

    Returns:
        Id -> task.

    Raises:
        InputError: If it cannot be read, or, with a problem for each task, if it is unsound.
    """
    lines = _text(path).splitlines()
    found: dict[str, Task] = {}
    problems: list[Problem] = []
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        cells = [line.strip() for line in lines[at : at + len(_LINES)]]
        place, at = f"{path}, line {at + 1}", at + len(_LINES)
        if fault := _fault(cells, found):
            remedy = f"a task is five lines: {', '.join(_LINES)} with commas between them"
            problems.append(Problem(place, fault, remedy))
            # What follows may be shifted by a line, and no problem about it would be true.
            break
        found[cells[0]] = Task(cells[0], cells[1], tuple(map(str.strip, cells[4].split(","))))
    if not found and not problems:
        problems.append(Problem(str(path), "has no task", "give tasks_primary.txt"))
    if problems:
        raise InputError(problems)
    return MappingProxyType(found)


def read_videos(path: Path) -> tuple[tuple[str, str], ...]:
    """Read ``videos_val.csv``, in which each line is ``task,video,url``.

    Returns:
        Task and video of each line, in their order.

    Raises:
        InputError: If it cannot be read, or, with a problem for each line, if it is unsound.
    """
    problems: list[Problem] = []
    found: list[tuple[str, str]] = []
    for number, cells in _lines(path):
        if len(cells) < 2 or not all(cells[:2]):
            problem = f"is {','.join(cells)!r}"
            problems.append(Problem(f"{path}, line {number}", problem, "write task,video,url"))
        else:
            found.append((cells[0], cells[1]))
    if not found and not problems:
        problems.append(Problem(str(path), "lists no video", "give videos_val.csv"))
    if problems:
        raise InputError(problems)
    return tuple(found)


def videos(
    listed: Iterable[tuple[str, str]],
    tasks: Mapping[str, Task],
    annotations: Path,
    *,
    features: Path,
    audio: Path | None = None,
    report: Report,
) -> Iterator[Video]:
    """Read videos one by one, each once with all the tasks that it shows.

    Args:
        listed: Task and video, as the list of videos names them.
        tasks: By id.
        annotations: The folder of ``{task}_{video}.csv``, whose lines are ``step,start,end``.
        features: The folder of ``{video}_2d.npz`` and ``{video}_3d.npz``, which may lie in a
            folder of their task, of their video, or of both.
        audio: The folder in which ``{video}_spec.npz`` lie; the same, if None.
        report: Lists what is left out: videos without a sound file of features, or a task of
            which there are no annotations, and intervals that are none, or behind the video's end.

    Yields:
        The videos that can be read, in the order of the list.

    Raises:
        InputError: At the first that cannot be read, unless the report skips such.
    """
    sounds = features if audio is None else audio
    for name, of in _by_video(listed, tasks, report).items():
        found: dict[str, Told] = {}
        for task in of:
            with report.item():
                found[task] = _told(annotations, f"{task}_{name}.csv")
        video = None
        if found:
            with report.item():
                files = [_file(features, of, name, kind) for kind in ("2d", "3d")]
                files.append(_file(sounds, of, name, "spec"))
                video = _video(
                    name, files, {tasks[task]: told for task, told in found.items()}, report
                )
        if video is not None:
            yield video


def _fault(cells: Sequence[str], known: Mapping[str, Task]) -> str | None:
    """What is wrong with the lines of a task."""
    if len(cells) < len(_LINES) or not cells[0]:
        return "the file ends inside a task"
    name, _, _, count, steps = cells
    told = [step.strip() for step in steps.split(",")]
    if not count.isdecimal():
        return f"task {name!r} says {count!r} instead of how many steps it has"
    if int(count) != len(told) or not all(told):
        return (
            f"task {name!r} says that it has {count} steps, but names {len([*filter(None, told)])}"
        )
    return f"task {name!r} is there already" if name in known else None


def _by_video(
    listed: Iterable[tuple[str, str]], tasks: Mapping[str, Task], report: Report
) -> Mapping[str, list[str]]:
    """Video -> its tasks."""
    found: dict[str, list[str]] = {}
    for task, video in listed:
        with report.item():
            place = f"video {video!r} of task {task!r}"
            if task not in tasks:
                remedy = "give a file of tasks that has it, or take the video from the list"
                raise InputError(Problem(place, "the task is not known", remedy))
            if task in found.get(video, ()):
                problem, remedy = "is in the list more than once", "name each once"
                raise InputError(Problem(place, problem, remedy))
            found.setdefault(video, []).append(task)
    return found


def _told(folder: Path, name: str) -> Told:
    """What a file of annotations says."""
    path = inside(folder, name)
    return [(f"{path}, line {number}", cells) for number, cells in _lines(path)]


def _file(folder: Path, tasks: Sequence[str], video: str, kind: str) -> Path:
    """Where features lie; the first place of all if they lie in none."""
    name = f"{video}_{kind}.npz"
    ways = [name, f"{video}/{name}"]
    ways += [f"{task}/{way}" for task in tasks for way in tuple(ways)]
    places = [inside(folder, way) for way in ways]
    return next((place for place in places if place.is_file()), places[0])


def _video(name: str, files: Sequence[Path], found: Mapping[Task, Told], report: Report) -> Video:
    first, second = (read_array(file, "features") for file in files[:2])
    sound = read_array(files[2], "arr_0", axis=0)
    if not len(first):
        raise InputError(Problem(str(files[0]), "has no second", "extract it again"))
    shown = {
        task.name: tuple(_intervals(told, task, len(first), report)) for task, told in found.items()
    }
    return Video(name, first, second, sound, MappingProxyType(shown))


def _intervals(told: Told, task: Task, seconds: int, report: Report) -> Iterator[Shown]:
    """Those that are sound, cut where the video ends."""
    for place, cells in told:
        shown = None
        with report.item():
            shown = _interval(cells, task, seconds, place)
        if shown is not None:
            yield shown


def _interval(cells: Sequence[str], task: Task, seconds: int, place: str) -> Shown:
    try:
        step, start, end = int(cells[0]), float(cells[1]), float(cells[2])
    except (ValueError, IndexError) as error:
        problem = f"is {','.join(cells)!r}"
        raise InputError(Problem(place, problem, "write step,start,end")) from error
    if not 1 <= step <= len(task.steps):
        problem = f"step {step} of task {task.name!r}, which has {len(task.steps)}"
        raise InputError(Problem(place, problem, "give the tasks that were annotated"))
    if not (0 <= start < end and math.isfinite(end)):
        raise InputError(Problem(place, f"from {start} to {end} is no interval"))
    if start >= seconds:
        problem = f"starts at {start} seconds, but the features end after {seconds}"
        raise InputError(Problem(place, problem, "extract the whole video"))
    return Shown(step, start, min(end, float(seconds)))


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of every line that is not empty."""
    try:
        rows = list(csv.reader(_text(path).splitlines(), strict=True))
    except csv.Error as error:
        raise InputError(Problem(str(path), f"cannot be read: {error}")) from error
    for number, cells in enumerate(rows, start=1):
        told = [cell.strip() for cell in cells]
        if any(told):
            yield number, told


def _text(path: Path) -> str:
    try:
        return written(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
        raise InputError(Problem(str(path), problem, "give the released file")) from error
    except UnicodeDecodeError as error:
        problem = f"cannot be read: {error}"
        raise InputError(Problem(str(path), problem, "save it in UTF-8")) from error


COLUMNS = ("video", "task", "step", "start", "end")
"""Of the file that says when steps are shown."""

HEARD = 8
"""Seconds of sound around the middle of each second of a video."""

_RATE = SAMPLE_RATE // HOP
_TEST = 2


def worded(
    tasks: Mapping[str, Task], vectors: WordVectors, recipe: Recipe, report: Report
) -> dict[str, Task]:
    """The tasks whose steps all have a known word; a step without one could not ask.

    Raises:
        InputError: At the first that has a step without, unless the report skips such.
    """
    found = {}
    for name, task in tasks.items():
        with report.item():
            for step in task.steps:
                if vectors.of(step, recipe) is None:
                    remedy = "give word vectors that have one, or the task cannot be asked for"
                    place = f"task {name!r}, step {step!r}"
                    raise InputError(Problem(place, "no word of it is known", remedy))
            found[name] = task
    return found


def write_step_videos(
    videos: Iterable[Video],
    tasks: Mapping[str, Task],
    folder: Path,
    *,
    vectors: WordVectors,
    recipe: Recipe,
    dtype: DType = "float16",
    left_out: list[Problem] | None = None,
    provenance: Provenance | None = None,
) -> DatasetCard:
    """Write a store with an item for every second of some videos and one for every step.

    Items are ``<task>_<video>/<second>`` with ``video``, the largest value of each feature in that
    second, 2D and 3D each brought to length 1, and ``audio``, eight seconds around the middle of
    it, moved inside where they would begin before the sound or end behind it; and ``<task>/<step>``
    with ``text``. All are for testing.

    Args:
        videos: One after the other; all have features of the same sizes.
        tasks: By id; those that no video has are passed over.
        folder: Where to; it must not be there, nor the file beside it that says when which video
            shows which step, see :func:`~continual_mm.data.cards.steps_of`.
        vectors: Of words.
        recipe: In ``reference`` silence is 0 dB, as published; in ``robust`` a video without sound
            is as quiet as the published spectrograms become.
        dtype: In which features are stored.
        left_out: Takes the problems about faulty videos and items, which then are left out;
            without it they end the writing.
        provenance: What the store keeps of how it came about.

    Raises:
        InputError: With everything that is wrong.
    """
    given = iter(videos)
    first = list(islice(given, COMPARED_VIDEOS))
    if not first:
        remedy = "see what was left out, and why"
        raise InputError(Problem(str(folder), "there is no video to write", remedy))
    parts = usual((one.features_2d, one.features_3d, one.sound.T) for one in first)
    layout = video_layout(*parts, vectors, recipe)
    shown = steps_of(folder)
    lines: list[tuple[object, ...]] = []
    seen: dict[str, None] = {}
    try:
        with store_writer(
            folder, layout=layout, dtype=dtype, left_out=left_out, provenance=provenance
        ) as writer:
            for video in chain(first, given):
                sound = _heard(video, recipe)
                both = video.features_2d, video.features_3d
                number = written_recording(writer, video.name, (*both, sound), left_out)
                if number is None:
                    continue
                for record in _seconds(video, number, len(sound)):
                    writer.item(record)
                lines += _step_lines(video)
                seen |= dict.fromkeys(video.shown)
            for task in seen:
                for record in _steps(tasks[task], vectors, recipe):
                    writer.item(record)
            card = writer.finish()
            _write(shown, lines)
    except BaseException:
        shown.unlink(missing_ok=True)
        raise
    return card


def _heard(video: Video, recipe: Recipe) -> Floats:
    """(frames, mels) of which every second has some, so that none lacks its sound."""
    sound = video.sound.T
    if recipe.reference and len(sound):
        return sound
    if not recipe.reference and sound.any():
        return sound
    level = LOUDEST if recipe.reference else QUIETEST
    return np.full((1, sound.shape[1]), level, dtype=sound.dtype)


def _seconds(video: Video, number: int, frames: int) -> Iterator[Record]:
    seconds, rows = len(video.features_2d), len(video.features_3d)
    for task in video.shown:
        name = f"{task}_{video.name}"
        for second in range(seconds):
            # As adaptive pooling has it: every row is in a second, and every second has a row.
            begin, end = second * rows // seconds, -(-(second + 1) * rows // seconds)
            yield {
                "ids": f"{name}/{second}",
                "split": _TEST,
                "group": name,
                "text_raw": "",
                "video": Window(number, ((second, second + 1), (begin, end))),
                "audio": Window(number, (_around(second, frames),)),
            }


def _around(second: int, frames: int) -> tuple[int, int]:
    """Frames around the middle of a second."""
    begin = int((second + 0.5 - HEARD / 2) * _RATE)
    begin = max(0, min(begin, frames - HEARD * _RATE))
    return begin, min(begin + HEARD * _RATE, frames)


def _steps(task: Task, vectors: WordVectors, recipe: Recipe) -> Iterator[Record]:
    for number, step in enumerate(task.steps, start=1):
        yield {
            "ids": f"{task.name}/{number}",
            "split": _TEST,
            "group": task.name,
            "text_raw": step,
            "text": vectors.stored(step, recipe),
        }


def _step_lines(video: Video) -> Iterator[tuple[object, ...]]:
    for task, shown in video.shown.items():
        for one in shown:
            yield f"{task}_{video.name}", task, one.step, one.start, one.end


def _write(path: Path, lines: Iterable[tuple[object, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(lines)
