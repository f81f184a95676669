"""CrossTask into a store: a recording for each video, and an item for every second of it.

Steps of tasks are items of their own, of text alone; a protocol of the kind ``steps`` wants it so.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path

import numpy as np

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.data.conversion.recordings import COMPARED, Floats, layout_of, usual, written
from continual_mm.data.conversion.records import DType
from continual_mm.data.published.crosstask import Task, Video
from continual_mm.data.published.recipe import Recipe
from continual_mm.data.published.report import Record, Report
from continual_mm.data.published.sound import LOUDEST, QUIETEST
from continual_mm.data.published.vectors import WordVectors
from continual_mm.data.published.windows import HOP, SAMPLE_RATE
from continual_mm.data.shelf import steps_of
from continual_mm.data.store.layout import Window
from continual_mm.data.store.writer import store_writer
from continual_mm.modality import DatasetCard, Provenance

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
        RefusedError: At the first that has a step without, unless the report skips such.
    """
    found = {}
    for name, task in tasks.items():
        with report.item():
            for step in task.steps:
                if vectors.of(step, recipe) is None:
                    remedy = "give word vectors that have one, or the task cannot be asked for"
                    place = f"task {name!r}, step {step!r}"
                    raise RefusedError(Complaint(place, "no word of it is known", remedy))
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
    left_out: list[Complaint] | None = None,
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
            shows which step, see :func:`~continual_mm.data.shelf.steps_of`.
        vectors: Of words.
        recipe: In ``reference`` silence is 0 dB, as published; in ``robust`` a video without sound
            is as quiet as the published spectrograms become.
        dtype: In which features are stored.
        left_out: Takes the complaints about faulty videos and items, which then are left out;
            without it they end the writing.
        provenance: What the store keeps of how it came about.

    Raises:
        RefusedError: With everything that is wrong.
    """
    given = iter(videos)
    first = list(islice(given, COMPARED))
    if not first:
        remedy = "see what was left out, and why"
        raise RefusedError(Complaint(str(folder), "there is no video to write", remedy))
    parts = usual((one.features_2d, one.features_3d, one.sound.T) for one in first)
    layout = layout_of(*parts, vectors, recipe)
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
                number = written(writer, video.name, (*both, sound), left_out)
                if number is None:
                    continue
                for record in _seconds(video, number, len(sound)):
                    writer.item(record)
                lines += _lines(video)
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


def _lines(video: Video) -> Iterator[tuple[object, ...]]:
    for task, shown in video.shown.items():
        for one in shown:
            yield f"{task}_{video.name}", task, one.step, one.start, one.end


def _write(path: Path, lines: Iterable[tuple[object, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(lines)
