"""CrossTask as it is released: tasks of several steps, and videos that show them."""

import csv
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from continual_mm.data.cards import steps_of
from continual_mm.data.schema import Record
from continual_mm.data.store.form import Window
from continual_mm.definitions.modality import DatasetCard
from continual_mm.preparation.formats import records
from continual_mm.preparation.formats.features import (
    LOUDEST,
    QUIETEST,
    Floats,
    inside,
    read_array,
)
from continual_mm.preparation.formats.howto100m import HOP, SAMPLE_RATE
from continual_mm.preparation.formats.pickles import clean_text
from continual_mm.preparation.formats.recipe import Recipe, skipping
from continual_mm.system.errors import InputError, Problem, Problems
from continual_mm.system.reading import read_text

Line = tuple[str, Sequence[str]]  # place and cells of a line of a file
Steps = tuple[str, ...]  # what the steps of a task are called, in their order

_TASK_LINES = ("its id", "its name", "its url", "how many steps it has", "the steps")
"""Of a task, one below the other; empty lines stand between tasks."""

COLUMNS = ("video", "task", "step", "start", "end")  # of the file that says when steps are shown
AUDIO_SECONDS = 8  # seconds of audio around the middle of each second of a video

_RATE = SAMPLE_RATE // HOP
_TEST = 2


class Interval(NamedTuple):
    """Seconds in which a video shows a step, counted from 1; they end within the video."""

    step: int
    start: float
    end: float


@dataclass(frozen=True, slots=True, eq=False)
class Video(records.Video):
    """A video of at least one second, and for each of its tasks when which step is shown."""

    intervals: Mapping[str, tuple[Interval, ...]]


def read_tasks(path: Path) -> Mapping[str, Steps]:
    """The steps of each task of ``tasks_primary.txt``: five lines, and empty ones between tasks."""
    lines = _text(path).splitlines()
    found: dict[str, Steps] = {}
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        cells = [line.strip() for line in lines[at : at + len(_TASK_LINES)]]
        if problem := _task_problem(cells, found):
            # What follows may be shifted by a line, and no problem about it would be true.
            remedy = f"a task is five lines: {', '.join(_TASK_LINES)} with commas between them"
            raise InputError.at(f"{path}, line {at + 1}", problem, remedy)
        found[cells[0]] = tuple(map(str.strip, cells[4].split(",")))
        at += len(_TASK_LINES)
    if not found:
        raise InputError.at(path, "has no task", "give tasks_primary.txt")
    return MappingProxyType(found)


def _task_problem(cells: Sequence[str], known: Collection[str]) -> str | None:
    """What is wrong with the lines of a task."""
    if len(cells) < len(_TASK_LINES) or not cells[0]:
        return "the file ends inside a task"
    name, _, _, count, steps = cells
    named = [step.strip() for step in steps.split(",")]
    if not count.isdecimal():
        return f"task {name!r} says {count!r} instead of how many steps it has"
    if int(count) != len(named) or not all(named):
        number = len([*filter(None, named)])
        return f"task {name!r} says that it has {count} steps, but names {number}"
    return f"task {name!r} is there already" if name in known else None


def read_videos(path: Path) -> tuple[tuple[str, str], ...]:
    """Task and video of each line of ``videos_val.csv``, which is ``task,video,url``."""
    problems = Problems()
    found: list[tuple[str, str]] = []
    for place, cells in _lines(path):
        if len(cells) < 2 or not all(cells[:2]):
            problems.append(Problem(place, f"is {','.join(cells)!r}", "write task,video,url"))
        else:
            found.append((cells[0], cells[1]))
    if not found and not problems:
        problems.append(Problem(str(path), "lists no video", "give videos_val.csv"))
    problems.check()
    return tuple(found)


def with_known_words(
    tasks: Mapping[str, Steps], store: records.VideoStore, left_out: Problems | None
) -> dict[str, Steps]:
    """The tasks whose steps all have a known word; a step without one cannot be a query."""
    found = {}
    for name, steps in tasks.items():
        with skipping(left_out):
            for step in steps:
                if store.vectors.of(step, store.recipe) is None:
                    remedy = "give word vectors that have one, or the task cannot be asked for"
                    place = f"task {name!r}, step {step!r}"
                    raise InputError.at(place, "no word of it is known", remedy)
            found[name] = steps
    return found


def videos(
    listed: Iterable[tuple[str, str]],
    tasks: Mapping[str, Steps],
    annotations: Path,
    *,
    features: Path,
    audio: Path | None = None,
    left_out: Problems | None = None,
) -> Iterator[Video]:
    """Read videos one by one in the order of the list, each once with all the tasks that it shows.

    ``listed`` are task and video. Lines of ``{task}_{video}.csv`` are ``step,start,end``. The files
    ``{video}_2d.npz``, ``_3d`` and ``_spec`` lie in the folders of features and audio, or there in
    one of their task, of their video, or of both. ``left_out`` takes the problems of videos, tasks
    and intervals that cannot be read; without it they are raised.
    """
    for name, of in _by_video(listed, tasks, left_out).items():
        lines: dict[str, list[Line]] = {}
        for task in of:
            with skipping(left_out):
                lines[task] = list(_lines(inside(annotations, f"{task}_{name}.csv")))
        if lines:
            with skipping(left_out):
                files = [_file(features, of, name, kind) for kind in ("2d", "3d")]
                files.append(_file(features if audio is None else audio, of, name, "spec"))
                yield _video(name, files, lines, tasks, left_out)


def _by_video(
    listed: Iterable[tuple[str, str]], tasks: Collection[str], left_out: Problems | None
) -> Mapping[str, list[str]]:
    """Video -> its tasks."""
    found: dict[str, list[str]] = {}
    for task, video in listed:
        with skipping(left_out):
            place = f"video {video!r} of task {task!r}"
            if task not in tasks:
                remedy = "give a file of tasks that has it, or take the video from the list"
                raise InputError.at(place, "the task is not known", remedy)
            if task in found.get(video, ()):
                raise InputError.at(place, "is in the list more than once", "name each once")
            found.setdefault(video, []).append(task)
    return found


def _file(folder: Path, tasks: Sequence[str], video: str, kind: str) -> Path:
    """Where features lie; the first place of all if they lie in none."""
    name = f"{video}_{kind}.npz"
    ways = [name, f"{video}/{name}"]
    ways += [f"{task}/{way}" for task in tasks for way in tuple(ways)]
    places = [inside(folder, way) for way in ways]
    return next((place for place in places if place.is_file()), places[0])


def _video(
    name: str,
    files: Sequence[Path],
    lines: Mapping[str, Sequence[Line]],
    tasks: Mapping[str, Steps],
    left_out: Problems | None,
) -> Video:
    first, second = (read_array(file, "features") for file in files[:2])
    spectrogram = read_array(files[2], "arr_0", axis=0)
    if not len(first):
        raise InputError.at(files[0], "has no second", "extract it again")
    intervals: dict[str, tuple[Interval, ...]] = {}
    for task, given in lines.items():
        found = []
        for line in given:
            with skipping(left_out):
                found.append(_interval(line, task, len(tasks[task]), len(first)))
        intervals[task] = tuple(found)
    return Video(name, first, second, spectrogram, MappingProxyType(intervals))


def _interval(line: Line, task: str, steps: int, seconds: int) -> Interval:
    """An interval, cut where the video ends."""
    place, cells = line
    try:
        step, start, end = int(cells[0]), float(cells[1]), float(cells[2])
    except (ValueError, IndexError) as error:
        raise InputError.at(place, f"is {','.join(cells)!r}", "write step,start,end") from error
    if not 1 <= step <= steps:
        problem = f"step {step} of task {task!r}, which has {steps}"
        raise InputError.at(place, problem, "give the tasks that were annotated")
    if not (0 <= start < end and math.isfinite(end)):
        raise InputError.at(place, f"from {start} to {end} is no interval")
    if start >= seconds:
        problem = f"starts at {start} seconds, but the features end after {seconds}"
        raise InputError.at(place, problem, "extract the whole video")
    return Interval(step, start, min(end, float(seconds)))


def _lines(path: Path) -> Iterator[Line]:
    """Every line that is not empty."""
    try:
        rows = list(csv.reader(_text(path).splitlines(), strict=True))
    except csv.Error as error:
        raise InputError.at(path, f"cannot be read: {error}") from error
    for number, row in enumerate(rows, start=1):
        cells = [cell.strip() for cell in row]
        if any(cells):
            yield f"{path}, line {number}", cells


def _text(path: Path) -> str:
    return clean_text(read_text(path, "give the released file, in UTF-8"))


def write_step_videos(
    videos: Iterable[Video], tasks: Mapping[str, Steps], store: records.VideoStore
) -> DatasetCard:
    """Write a store with an item for every second of some videos and one for every step they show.

    Items are ``<task>_<video>/<second>`` with ``video`` and the eight seconds of ``audio`` around
    its middle, moved inside the spectrogram; and ``<task>/<step>`` with ``text``. All are for
    testing. In ``reference`` silence is 0 dB, as published; in ``robust`` a video without audio is
    as quiet as the published spectrograms become. The file of :func:`steps_of` must be new as well.
    """
    annotations, recipe = steps_of(store.folder), store.recipe
    lines: list[tuple[object, ...]] = []
    shown: dict[str, None] = {}
    try:
        with store.written(videos, lambda video: _audible(video, recipe)) as (writer, recorded):
            for video, number in recorded:
                for record in _seconds(video, number, len(_audible(video, recipe))):
                    writer.item(record)
                for task, intervals in video.intervals.items():
                    name = f"{task}_{video.name}"
                    lines += [(name, task, *one) for one in intervals]
                shown |= dict.fromkeys(video.intervals)
            for task in shown:
                for record in _steps(task, tasks[task], store):
                    writer.item(record)
            card = writer.finish()
            with annotations.open("x", encoding="utf-8", newline="") as stream:
                csv.writer(stream, lineterminator="\n").writerows([COLUMNS, *lines])
    except BaseException:
        annotations.unlink(missing_ok=True)
        raise
    return card


def _audible(video: Video, recipe: Recipe) -> Floats:
    """(frames, mels), at least one frame, so that no second lacks audio."""
    spectrogram = video.spectrogram.T
    if len(spectrogram) if recipe.reference else spectrogram.any():
        return spectrogram
    level = LOUDEST if recipe.reference else QUIETEST
    return np.full((1, spectrogram.shape[1]), level, dtype=spectrogram.dtype)


def _seconds(video: Video, number: int, frames: int) -> Iterator[Record]:
    seconds, rows = len(video.features_2d), len(video.features_3d)
    for task in video.intervals:
        name = f"{task}_{video.name}"
        for second in range(seconds):
            # As adaptive pooling has it: every row is in a second, and every second has a row.
            begin, end = second * rows // seconds, -(-(second + 1) * rows // seconds)
            first = int((second + 0.5 - AUDIO_SECONDS / 2) * _RATE)
            first = max(0, min(first, frames - AUDIO_SECONDS * _RATE))
            around = (first, min(first + AUDIO_SECONDS * _RATE, frames))
            yield {
                "ids": f"{name}/{second}",
                "split": _TEST,
                "group": name,
                "text_raw": "",
                "video": Window(number, ((second, second + 1), (begin, end))),
                "audio": Window(number, (around,)),
            }


def _steps(task: str, steps: Steps, store: records.VideoStore) -> Iterator[Record]:
    for number, step in enumerate(steps, start=1):
        yield {
            "ids": f"{task}/{number}",
            "split": _TEST,
            "group": task,
            "text_raw": step,
            "text": store.vectors.stored(step, store.recipe),
        }
