"""Judges: each scores one protocol of its kind, by comparing the items of a dataset."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from continual_mm.data.dataset import Dataset, Split
from continual_mm.data.schema import NOT_GIVEN
from continual_mm.definitions.scenario import Protocol
from continual_mm.evaluation.annotations import Interval, read_annotations
from continual_mm.evaluation.relevance import Relevance
from continual_mm.metrics import retrieval as videos
from continual_mm.metrics.answers import RECALLS, Answers
from continual_mm.metrics.classification import correctly_classified, mean_by_class
from continual_mm.metrics.localisation import average_precision, placed, shown, step_recall
from continual_mm.metrics.ranking import Question, Ties, counted, spans
from continual_mm.metrics.retrieval import best_ranks
from continual_mm.system.errors import InputError, Problem, first_few

Rows = NDArray[np.int64]  # (n,) rows of a dataset, ascending
Similarity = Callable[[Tensor, Tensor], Tensor]
"""(q,) and (g,) dataset rows -> (q, g) similarities of query sides with gallery sides."""
_ELEMENTS_AT_ONCE = 1 << 23  # similarities in one block: 32 MB
Found = dict[str, Answers]  # series -> the results of its queries


class Judge(ABC):
    """Scores the queries of one protocol; made once, before training.

    An InputError, which calls the protocol ``place``, if items that it needs are missing. ``rows``
    are the items that are embedded; ``expected`` is how many queries the published protocol has.
    """

    rows: Rows
    queries: int
    expected: int

    def __init__(self, protocol: Protocol, dataset: Dataset, place: str) -> None:
        self.protocol = protocol
        self.dataset = dataset
        self.place = place

    @abstractmethod
    def answers(self, similarity: Similarity, *, reference: bool, listed: bool = False) -> Found:
        """The results, with ``reference`` counted as the published scripts do.

        With ``listed`` a retrieval repeats their mistake of listing every tie.
        """

    def refuse(self, problem: str, remedy: str = "") -> InputError:
        """A problem about the protocol."""
        return InputError.at(self.place, problem, remedy)

    def having(self, modalities: Sequence[str], *, split: Split = Split.TEST) -> NDArray[np.bool_]:
        """(items,) which items of a split have all of some modalities."""
        found: NDArray[np.bool_] = self.dataset.split == split
        for name in modalities:
            found &= self.dataset.columns[name].present
        return found

    def having_any(self, modalities: Sequence[str]) -> NDArray[np.bool_]:
        """(items,) which test items have one of some modalities or more."""
        found: NDArray[np.bool_] = np.zeros(len(self.dataset), dtype=np.bool_)
        for name in modalities:
            found |= self.dataset.columns[name].present
        found &= self.dataset.split == Split.TEST
        return found

    def names_and_items(self) -> tuple[Rows, Rows]:
        """Test items with the query side alone, such as names of classes, and the gallery."""
        queries, gallery = self.having(self.protocol.query), self.having(self.protocol.gallery)
        names, items = np.flatnonzero(queries & ~gallery), np.flatnonzero(gallery)
        if not len(names):
            remedy = "add test items that have the query's modalities and lack the gallery's"
            raise self.refuse("no test item is a name: all queries are in the gallery", remedy)
        if not len(items):
            raise self.refuse(f"no test item has {' and '.join(self.protocol.gallery)}")
        return names, items


def tensor(rows: Rows) -> Tensor:
    """Rows as torch has them."""
    return torch.from_numpy(np.ascontiguousarray(rows))


def plain(values: Tensor) -> NDArray[np.float64]:
    """Numbers as numpy has them."""
    found: NDArray[np.float64] = values.double().cpu().numpy()
    return found


class Retrieval(Judge):
    """Every item that has all modalities is a query, and all of them are the gallery.

    In a protocol that is ``partial`` those are items that have one modality of each side or more.
    Items with the same features of a side are one query or one answer, such as the captions of one
    recording; with ``merged`` false each item is answered by itself alone, as published scripts
    count. Missing items of the published test set are misses in every recall; in the median they
    have an infinite rank, or none in reference mode.
    """

    def __init__(
        self, protocol: Protocol, dataset: Dataset, place: str, *, merged: bool = True
    ) -> None:
        super().__init__(protocol, dataset, place)
        sides = protocol.query, protocol.gallery
        having = (
            self.having_any(sides[0]) & self.having_any(sides[1])
            if protocol.partial
            else self.having(protocol.modalities)
        )
        self.rows = np.flatnonzero(having)
        items = len(self.rows)
        if not items:
            wanted = " and ".join(" or ".join(side) for side in sides)
            named = wanted if protocol.partial else ", ".join(protocol.modalities)
            raise self.refuse(f"no test item has {named}")
        if 0 < protocol.expected < items:
            problem = f"expected = {protocol.expected}, but {items} test items have everything"
            raise self.refuse(problem, "give the size of the published test set")
        self.relevance = Relevance(dataset if merged else None)
        self._matching = self.relevance.matching(
            protocol.query, protocol.gallery, self.rows, self.rows
        )
        self.queries = len(self._matching.first)
        self.expected = self.queries + max(0, protocol.expected - items)

    def answers(self, similarity: Similarity, *, reference: bool, listed: bool = False) -> Found:
        """Ranks of the items; with ``listed`` the first and the last rank of each."""
        queries, gallery = (
            tensor(self.rows[some]) for some in (self._matching.first, self._matching.second)
        )

        def block(some: slice, others: slice) -> Tensor:
            return similarity(queries[some], gallery[others])

        right = self._matching.right(block(slice(0), slice(0)).device)
        (before,) = counted(block, (len(queries), len(gallery)), [Question(right)])
        ties: tuple[Ties, ...] = ("optimistic", "pessimistic") if listed else ("mean",)
        found = np.stack([plain(before.ranks(each)) for each in ties])
        return {"items": self._whole(found, self._matching.first, reference=reference)}

    def _whole(self, found: NDArray[np.float64], asked: Rows, *, reference: bool) -> Answers:
        """(rows, queries) ranks of the items that ask, followed by those of the missing ones."""
        missing = self.expected - self.queries
        further = len(self.dataset) + np.arange(missing)
        absent = np.full((len(found), missing), np.nan if reference else np.inf)
        recordings = self.relevance.recordings(self.protocol.modalities, self.rows)
        return Answers(
            np.concatenate([self.rows[asked], further]),
            np.concatenate([found, absent], axis=1),
            recordings=None if recordings is None else np.concatenate([recordings[asked], further]),
        )


class VideoRetrieval(Retrieval):
    """Items are clips of longer videos, given by their ``group``.

    A caption retrieves its clip and its video; all captions of a video retrieve it together, by
    mean similarity or by votes. Each item asks; clips of a video with the same features are one.
    Missing items are missing captions; no video is missing.
    """

    def __init__(
        self, protocol: Protocol, dataset: Dataset, place: str, *, merged: bool = True
    ) -> None:
        super().__init__(protocol, dataset, place, merged=merged)
        self.queries = len(self.rows)
        self.expected = protocol.expected or self.queries
        if dataset.group is None:
            problem = f"dataset '{dataset.card.name}' does not say which video a clip is from"
            raise self.refuse(problem, "give its items a group")
        self._videos, place_of = np.unique(dataset.group[self.rows], return_inverse=True)
        self._video: Rows = place_of.reshape(-1).astype(np.int64)
        self._shown = self.relevance.entries(protocol.gallery, self.rows)
        both = np.stack([self._video, self._shown])
        self._clips = np.sort(np.unique(both, axis=1, return_index=True)[1])

    def answers(self, similarity: Similarity, *, reference: bool, listed: bool = False) -> Found:
        """Ranks of clips and captions, and of videos with shares of votes.

        The published script for videos sorts, so ``listed`` changes nothing.
        """
        of_clips, of_captions = np.empty(self.queries), np.empty(self.queries)
        of_videos = np.empty(len(self._videos))
        shares = np.empty((2, len(RECALLS), len(self._videos)))
        for span, asked in self._blocks():
            compared = similarity(tensor(self.rows[asked]), tensor(self.rows[self._clips]))
            video, shown, some, clips = (
                tensor(one).to(compared.device)
                for one in (self._video, self._shown, asked, self._clips)
            )
            own = torch.arange(span.start, span.stop, device=compared.device)[:, None]
            for of, number in ((of_clips, shown), (of_captions, video)):
                of[asked] = plain(best_ranks(compared, number[some][:, None] == number[clips]))
            best = videos.best_clips(compared, video[clips], len(of_videos))
            local = video[some] - own[0]
            mean = videos.mean_over_captions(best, local)
            right = own == torch.arange(len(of_videos), device=compared.device)
            of_videos[span] = plain(best_ranks(mean, right))
            first = (
                videos.first_answers(best, max(RECALLS)),
                video[clips][videos.first_answers(compared, max(RECALLS))],
            )
            for (way, answers), (place, k) in product(enumerate(first), enumerate(RECALLS)):
                votes = videos.votes(answers[:, :k], local, len(of_videos))
                shares[way, place, span] = plain(videos.voted_among(votes, k, span.start))
        every = np.arange(self.queries)
        return {
            "clips": self._whole(of_clips[None], every, reference=reference),
            "captions": self._whole(of_captions[None], every, reference=reference),
            "videos": Answers(self._videos, of_videos[None]),
            "video_votes": Answers(self._videos, shares[0]),
            "clip_votes": Answers(self._videos, shares[1]),
        }

    def _blocks(self) -> Iterator[tuple[slice, Rows]]:
        """Some videos at a time, one at least, and the places of all of their captions."""
        order, ends = np.argsort(self._video, kind="stable"), np.bincount(self._video).cumsum()
        most, first, begin = _ELEMENTS_AT_ONCE // self.queries, 0, 0
        while first < len(ends):
            last = max(first + 1, int(np.searchsorted(ends, begin + most, side="right")))
            yield slice(first, last), order[begin : ends[last - 1]]
            first, begin = last, int(ends[last - 1])


class Classes(Judge):
    """Test items with the query's modalities alone, one or more for a label, name their class.

    Items without a label are left out. ``validation`` are the items of the gallery by which two
    paths are mixed, where the protocol has two and gives no weight.
    """

    def __init__(self, protocol: Protocol, dataset: Dataset, place: str) -> None:
        super().__init__(protocol, dataset, place)
        both = self.names_and_items()
        if dataset.label is None:
            raise self.refuse(f"dataset '{dataset.card.name}' has no labels", "label its items")
        self._names, self._items = (rows[dataset.label[rows] != NOT_GIVEN] for rows in both)
        if not len(self._items):
            raise self.refuse("no test item of the gallery has a label", "label its items")
        self.queries = self.expected = len(self._items)
        self._classes, class_of = np.unique(dataset.label[self._names], return_inverse=True)
        self._class_of_name = class_of.reshape(-1).astype(np.int64)
        self._labels = dataset.label[self._items]
        nameless = np.setdiff1d(self._labels, self._classes)
        if len(nameless):
            shown = first_few([str(label) for label in nameless])
            remedy = "add a test item with that label that has the query's modalities alone"
            raise self.refuse(f"no name of class {shown}", remedy)
        self.validation: Rows = np.empty(0, dtype=np.int64)
        if protocol.through and protocol.through_weight is None:
            known = np.isin(dataset.label, self._classes)
            known &= self.having(protocol.gallery, split=Split.VALIDATION)
            self.validation = np.flatnonzero(known)
        self.galleries = np.union1d(self._items, self.validation)
        self.rows = np.union1d(self._names, self.galleries)

    def answers(self, similarity: Similarity, *, reference: bool, listed: bool = False) -> Found:
        """Whether each item is classified rightly, and its class."""
        right = self.right(similarity, self._items)
        return {"items": Answers(self._items, np.stack([right, self._labels.astype(np.float64)]))}

    def right(self, similarity: Similarity, items: Rows) -> NDArray[np.float64]:
        """(items,) 1 for those that are classified rightly, parts of 1 where classes tie."""
        labels = np.zeros(0) if self.dataset.label is None else self.dataset.label[items]
        right = np.empty(len(items))
        for span in spans(len(right), _ELEMENTS_AT_ONCE // len(self._names)):
            compared = similarity(tensor(self._names), tensor(items[span])).T
            names = tensor(self._class_of_name).to(compared.device)
            own = tensor(np.searchsorted(self._classes, labels[span])).to(compared.device)
            means = mean_by_class(compared, names, len(self._classes))
            right[span] = plain(correctly_classified(means, own))
        return right


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

    def answers(self, similarity: Similarity, *, reference: bool, listed: bool = False) -> Found:
        """Recall of each video with its task and number of steps; average precision of tasks."""
        tasks = sorted({found[0].task for found in self._intervals.values()})
        lines: list[list[float]] = []
        scores: dict[str, list[NDArray[np.float64]]] = {task: [] for task in tasks}
        truths: dict[str, list[NDArray[np.bool_]]] = {task: [] for task in tasks}
        for video, seconds in self._seconds.items():
            task = self._intervals[video][0].task
            table = plain(similarity(tensor(self._steps[task]), tensor(seconds)).T)
            limits = [(one.start, one.end) for one in self._intervals[video]]
            steps = [one.step - 1 for one in self._intervals[video]]
            truth = shown(limits, steps, shape=table.shape)
            recall = step_recall(placed(table, ordered=self.protocol.ordered), truth)
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
        tasks = {one.task for found in self._intervals.values() for one in found}
        absent = {
            "video": [repr(video) for video in self._intervals if video not in seconds],
            "task": [repr(task) for task in sorted(tasks) if task not in self._steps],
        }
        place, remedy = f"{self.place}, annotations", "add its items, or remove its lines"
        problems = [
            Problem(place, f"no test item of {what} {first_few(names)}", remedy)
            for what, names in absent.items()
            if names
        ]
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


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
