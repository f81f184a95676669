"""When the steps of a task are shown in which video: a CSV file, read and checked."""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from continual_mm.data.cards import PUBLISHED, published_folder, steps_of
from continual_mm.definitions.scenario import Protocol
from continual_mm.system.errors import InputError, Problem
from continual_mm.system.reading import read_text, reads, user_path

COLUMNS = ("video", "task", "step", "start", "end")
LARGEST = 64 << 20  # bytes; CrossTask's have less than one


@dataclass(frozen=True, slots=True)
class Interval:
    """A time, in seconds, at which a video shows a step of its one task, counted from 1."""

    video: str
    task: str
    step: int
    start: float
    end: float


def annotations_of(protocol: Protocol, folder: str) -> Path:
    """The file of annotations of a protocol of the kind ``steps``, by default that of its dataset.

    Relative paths start in ``folder``, the scenario's.
    """
    if protocol.annotations:
        return protocol.annotations_file(folder)
    name = protocol.dataset
    known = name in PUBLISHED
    return steps_of(published_folder(name) if known else user_path(name, folder))


@reads
def read_annotations(path: Path) -> tuple[Interval, ...]:
    """Read a file whose first line names :data:`COLUMNS`; a problem for each wrong line."""
    try:
        text = read_text(path, "give the file's path", most=LARGEST)
        lines = list(csv.reader(StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise InputError.at(path, f"cannot be read: {error}", "save it as CSV in UTF-8") from error
    rows = [
        (number, cells) for number, cells in enumerate(lines, start=1) if any(map(str.strip, cells))
    ]
    if len(rows) < 2 or tuple(rows[0][1]) != COLUMNS:
        heading = ",".join(COLUMNS)
        problem = f"its first line is not {heading}, with an interval on each that follows"
        raise InputError.at(path, problem)
    found: list[Interval] = []
    problems: list[Problem] = []
    tasks: dict[str, str] = {}
    for number, cells in rows[1:]:
        interval = _interval(cells)
        faults = _faults(interval, tasks)
        problems += [Problem(f"{path}, line {number}", fault) for fault in faults]
        if interval is not None:
            tasks.setdefault(interval.video, interval.task)
            found.append(interval)
    if problems:
        raise InputError(problems)
    return tuple(found)


def _interval(cells: list[str]) -> Interval | None:
    try:
        video, task, step, start, end = cells
        return Interval(video, task, int(step), float(start), float(end))
    except ValueError:
        return None


def _faults(interval: Interval | None, tasks: dict[str, str]) -> Iterator[str]:
    if interval is None:
        yield "is not two names, a whole number and two numbers of seconds"
        return
    if not interval.video or not interval.task:
        yield "a name is empty"
    if interval.step < 1:
        yield f"step {interval.step}; steps are counted from 1"
    if not (0 <= interval.start < interval.end and math.isfinite(interval.end)):
        yield f"from {interval.start} to {interval.end} is no interval"
    earlier = tasks.get(interval.video, interval.task)
    if earlier != interval.task:
        yield f"video {interval.video!r} shows task {interval.task!r}, but {earlier!r} further up"
