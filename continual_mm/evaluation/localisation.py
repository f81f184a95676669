"""The judge of step localisation: the seconds of a video that show each step of its task."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.scenario import Protocol
from continual_mm.evaluation.annotations import Interval, read_annotations
from continual_mm.evaluation.judge import Judge, Rows, Similarity, plain, tensor
from continual_mm.metrics.answers import Answers
from continual_mm.metrics.localisation import average_precision, placed, shown, step_recall
from continual_mm.system.errors import InputError, Problem, first_few


class Steps(Judge):
    """Videos are cut into items of one second, and each task is described by items of its steps.

    Ids of items are ``<video>/<second>``, seconds from 0, with the gallery's modalities, and
    ``<task>/<step>``, steps from 1, with the query's alone. Videos without annotations are skipped.
    """

    def __init__(
        self, protocol: Protocol, dataset: Dataset, place: str, *, annotations: Path
    ) -> None:
        super().__init__(protocol, dataset, place)
        names, items = self.names_and_items()
        self._steps = self._numbered(names, first=1, what="step")
        seconds = self._numbered(items, first=0, what="second")
        self._intervals: dict[str, list[Interval]] = {}
        for interval in read_annotations(annotations):
            self._intervals.setdefault(interval.video, []).append(interval)
        self._check(seconds)
        self._seconds = {video: seconds[video] for video in sorted(self._intervals)}
        rows = [*self._steps.values(), *self._seconds.values()]
        self.rows = np.sort(np.concatenate(rows))
        shows = [len({one.step for one in found}) for found in self._intervals.values()]
        self.queries = self.expected = sum(shows)

    def answers(
        self, similarity: Similarity, *, reference: bool, listed: bool = False
    ) -> dict[str, Answers]:
        """Recall of each video with its task and number of steps; average precision of tasks."""
        tasks = sorted({found[0].task for found in self._intervals.values()})
        lines: list[list[float]] = []
        scores: dict[str, list[NDArray[np.float64]]] = {task: [] for task in tasks}
        truths: dict[str, list[NDArray[np.bool_]]] = {task: [] for task in tasks}
        for video, seconds in self._seconds.items():
            task = self._intervals[video][0].task
            table = plain(similarity(tensor(self._steps[task]), tensor(seconds)).T)
            intervals = self._intervals[video]
            limits = [(one.start, one.end) for one in intervals]
            truth = shown(limits, [one.step - 1 for one in intervals], shape=table.shape)
            predicted = placed(table, ordered=self.protocol.ordered)
            recall = step_recall(predicted, truth)
            lines.append([recall, tasks.index(task), truth.any(axis=0).sum()])
            scores[task].append(table)
            truths[task].append(truth)
        precision = [
            _mean(average_precision(np.concatenate(scores[task]), np.concatenate(truths[task])))
            for task in tasks
        ]
        return {
            "videos": Answers(
                np.arange(len(lines)), np.array(lines, dtype=np.float64).T, tuple(tasks)
            ),
            "tasks": Answers(np.arange(len(tasks)), np.array([precision]), tuple(tasks)),
        }

    def _numbered(self, rows: Rows, *, first: int, what: str) -> dict[str, Rows]:
        """Name -> rows of its items, in the order of the numbers in their ids."""
        found: dict[str, dict[int, int]] = {}
        odd = []
        for row in rows.tolist():
            name, _, number = str(self.dataset.ids[row]).rpartition("/")
            numbered = found.setdefault(name, {})
            if name and number.isdecimal() and int(number) not in numbered:
                numbered[int(number)] = row
            else:
                odd.append(f"{str(self.dataset.ids[row])!r}")
        if odd:
            problem = f"ids that are no <name>/<{what}>, or one that is there: {first_few(odd)}"
            raise self.refuse(problem)
        gaps = [
            repr(name)
            for name, numbered in found.items()
            if sorted(numbered) != list(range(first, first + len(numbered)))
        ]
        if gaps:
            problem = f"items of {first_few(gaps)} leave a {what} out"
            raise self.refuse(problem, f"number each from {first} on without a gap")
        return {
            name: np.array([row for _, row in sorted(numbered.items())])
            for name, numbered in found.items()
        }

    def _check(self, seconds: Mapping[str, Rows]) -> None:
        """Check that annotated videos, tasks and steps exist, and intervals begin in the videos."""
        absent = [repr(video) for video in self._intervals if video not in seconds]
        tasks = {one.task for found in self._intervals.values() for one in found}
        unknown = [repr(task) for task in sorted(tasks) if task not in self._steps]
        place = f"{self.place}, annotations"
        problems = [*_lacking("video", absent, place), *_lacking("task", unknown, place)]
        for video, found in self._intervals.items():
            for one in found:
                steps = len(self._steps.get(one.task, ()))
                if steps and one.step > steps:
                    problem = f"step {one.step} of task {one.task!r}, which has {steps}"
                    problems.append(Problem(place, problem, "add its item"))
                if one.start >= len(seconds.get(video, ())) > 0:
                    problem = f"video {video!r} ends before {one.start} seconds"
                    problems.append(Problem(place, problem, "remove the line"))
        if problems:
            raise InputError(problems)


def _lacking(what: str, names: list[str], place: str) -> Iterable[Problem]:
    if names:
        problem = f"no test item of {what} {first_few(names)}"
        yield Problem(place, problem, "add its items, or remove its lines")


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
