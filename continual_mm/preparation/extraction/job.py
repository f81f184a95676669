"""The job: every clip of a manifest through the towers, into a folder; an interrupted one resumes.

Imports neither torch nor av before they are needed.
"""

import csv
import json
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from continual_mm.preparation.extraction import clip_files
from continual_mm.preparation.extraction.manifest import Clip, Manifest
from continual_mm.preparation.extraction.towers import (
    Recipe,
    check_recipes,
    modules_of,
    need_vectors,
)
from continual_mm.system.errors import InputError, Problem
from continual_mm.system.files import atomic_write, differences, locked, write_errors, write_json
from continual_mm.system.imports import check_installed
from continual_mm.system.processes import Died, Pool, Result, Worker

if TYPE_CHECKING:
    from continual_mm.preparation.extraction.word_towers import Vectors

_LOCK = "extraction.lock"
_WORKER = "continual_mm.preparation.extraction.clip_features"


class Task(NamedTuple):
    """A clip to extract, the names of its files, and the parts that are not stored yet."""

    clip: Clip
    names: clip_files.Names
    missing: tuple[clip_files.Part, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """What all clips have in common; it is sent to other processes."""

    recipes: tuple[Recipe, ...]
    vectors: "Vectors | None"  # of the words that occur
    device: str
    media: Path  # what the clips' paths are relative to
    out: Path

    def stopped(self, problem: str) -> InputError:
        """The error for what would fail with every other clip as well."""
        remedy = "correct that and extract again: what is finished is kept"
        return InputError.at(self.out, problem, remedy)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many clips have features, now or from earlier calls, and how many failed."""

    finished: int
    failed: int


class ExtractionReporter:
    """Callbacks of an extraction's progress; by default they do nothing."""

    def prepares(self, workers: int) -> None:
        """Towers are about to be loaded, by other processes or, if 0, by this one."""

    def begins(self, clips: int, left: int) -> None:
        """There are so many clips, and so many of them are still to do."""

    def finished(self, clip: str) -> None:
        """A clip has its features."""

    def failed(self, clip: str, problem: str) -> None:
        """A clip has none, for a reason in one line; the others go on."""

    def ends(self, finished: int, failed: int) -> None:
        """All is done: so many clips have features, and so many have none."""


def extract(
    manifest: Manifest,
    recipes: Sequence[Recipe],
    out: Path,
    *,
    vectors: "Vectors | None" = None,
    workers: int = 1,
    device: str = "cpu",
    retry: bool = False,
    reporter: ExtractionReporter | None = None,
) -> Outcome:
    """Extract the features of every clip into a folder, or resume that.

    Each clip has a file of its own, complete or absent, so the job may be killed at any time. The
    features are the same bits however many ``workers`` (processes; 0 is this one) extract them.
    Clips that cannot be decoded are listed in ``report.csv``; ``retry`` tries them again. Without
    ``vectors`` these are trained on the captions of the training clips.
    """
    check_recipes(tuple(recipes))
    _check_files(manifest, recipes)
    check_installed("av", "extraction")
    reporter = reporter or ExtractionReporter()
    with write_errors(str(out)), locked(out / _LOCK):
        reporter.prepares(workers)
        known = None
        if need_vectors(recipes):
            words = import_module("continual_mm.preparation.extraction.word_towers")
            captions = (clip.caption or "" for clip in manifest.clips)
            known = words.needed(vectors or words.corpus_vectors(manifest), captions)
        job = Job(tuple(recipes), known, device, manifest.folder, out)
        return _Extraction(job, manifest, reporter).run(workers, retry)


def _check_files(manifest: Manifest, recipes: Sequence[Recipe]) -> None:
    """Refuse to make modalities of files where no clip has one, before the work on the others."""
    if not any(clip.path for clip in manifest.clips):
        remedy = "name the column of the files: --column path=NAME, or make nothing of them"
        places = (
            f"modality {one.modality!r}" for one in recipes if clip_files.part_of(one) != "text"
        )
        if problems := [Problem(place, "no clip has a file", remedy) for place in places]:
            raise InputError(problems)


def without_text(manifest: Manifest, recipes: Sequence[Recipe]) -> list[str]:
    """The modalities that would be made of text, where no clip has any."""
    if any(clip.caption for clip in manifest.clips):
        return []
    return [one.modality for one in recipes if clip_files.part_of(one) != "media"]


class _Extraction:
    """A call of :func:`extract`, inside its lock."""

    def __init__(self, job: Job, manifest: Manifest, reporter: ExtractionReporter) -> None:
        self._job = job
        self._reporter = reporter
        self._files = clip_files.ClipFiles(job.out / clip_files.CLIPS)
        fingerprint = job.vectors.words.fingerprint if job.vectors else ""
        self._naming = clip_files.Naming(job.recipes, job.media, fingerprint)
        first: dict[object, str] = {}
        for clip in manifest.clips:
            first.setdefault((clip.path, clip.start, clip.end, clip.cloud), clip.id)
        self._clips = [
            (clip, self._naming.of(clip, first=first[clip.path, clip.start, clip.end, clip.cloud]))
            for clip in manifest.clips
        ]

    def run(self, workers: int, retry: bool) -> Outcome:
        """Extract what is left."""
        extractor = import_module(_WORKER).Extractor(self._job)
        self._check_settings(extractor.contents())
        self._files.clear()
        self._write_list()
        self._files.remove_other_vectors(self._naming.vectors)
        left = self._left(retry)
        self._reporter.begins(len(self._clips), len(left))
        try:
            if workers and left:
                del extractor  # each process has its own
                self._in_processes(left, workers)
            else:
                for task in left:
                    self._report(task, extractor.extract(task))
        except BaseException:
            with suppress(OSError):  # the first error is the better one
                self._write_report()
            raise
        outcome = self._write_report()
        self._reporter.ends(outcome.finished, outcome.failed)
        return outcome

    def _check_settings(self, modalities: Mapping[str, Any]) -> None:
        """Write what is extracted, or check that the folder is for the same."""
        path, wanted = self._job.out / clip_files.JOB, {"version": 2, "modalities": modalities}
        if not path.exists():
            write_json(path, wanted)
        elif found := differences(path, wanted):
            remedy = "choose another --to, or the settings of before"
            raise InputError([Problem(str(path), difference, remedy) for difference in found])

    def _left(self, retry: bool) -> list[Task]:
        stored = self._files.names(clip_files.FEATURES)
        failed = set() if retry else self._files.names(clip_files.FAILURE)
        left, seen = [], Counter[str]()
        for clip, names in self._clips:
            if not clip_files.is_finished(names.parts.values(), stored) and failed.isdisjoint(
                names.failures
            ):
                missing = (part for part, name in names.parts.items() if name not in stored)
                media = names.parts.get("media", "")
                left.append((seen[media] if media else 0, Task(clip, names, tuple(missing))))
                seen[media] += 1
        # Those that show the same as another come after it, to find its features made.
        return [task for _, task in sorted(left, key=itemgetter(0))]

    def _in_processes(self, left: Sequence[Task], workers: int) -> None:
        """A clip that ends a process is tried once more, after the others."""
        waiting, lost = deque(left), set[str]()
        modules = modules_of(self._job.recipes)
        worker = Worker(f"{_WORKER}:extractor", (self._job,), modules)
        with Pool[Task](worker, size=min(workers, len(left)), threads=1) as pool:
            for task, event in pool.run(lambda: waiting.popleft() if waiting else None):
                if isinstance(event, Result):
                    self._report(task, event.value)
                elif isinstance(event, Died) and task.clip.id in lost:
                    failure = clip_files.Failure("process", event.reason)
                    self._files.write_messages(
                        task.names.failures[0], clip_files.FAILURE, [failure]
                    )
                    self._report(task, failure)
                else:
                    lost.add(task.clip.id)
                    waiting.append(task)

    def _report(self, task: Task, failure: clip_files.Failure | None) -> None:
        if failure is None:
            self._reporter.finished(task.clip.id)
        else:
            self._reporter.failed(task.clip.id, failure.message)

    def _write_list(self) -> None:
        """Write which clips there are; null stands for what is not known."""
        with _text_file(self._job.out / clip_files.CLIP_LIST) as stream:
            for clip, names in self._clips:
                entry = {
                    "files": [*names.parts.values()],
                    "id": clip.id,
                    "split": clip.split,
                    "group": clip.group,
                    "label": clip.label,
                    "text": clip.caption,
                }
                stream.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def _write_report(self) -> Outcome:
        """Write what went wrong, and count."""
        stored, failed = (
            self._files.names(clip_files.FEATURES),
            self._files.names(clip_files.FAILURE),
        )
        rows, finished, without = [], 0, 0
        for clip, names in self._clips:
            if clip_files.is_finished(names.parts.values(), stored):
                finished += 1
                outcome, ending, those = "noted", clip_files.NOTES, [*names.parts.values()]
            else:
                those = [name for name in names.failures if name in failed]
                without += bool(those)
                outcome, ending = "failed", clip_files.FAILURE
            found = [each for name in those for each in self._files.messages(name, ending)]
            rows += [(clip.id, clip.path, outcome, each.stage, each.message) for each in found]
        with _text_file(self._job.out / clip_files.REPORT) as stream:
            table = csv.writer(stream)
            table.writerow(("id", "path", "outcome", "stage", "problem"))
            table.writerows(rows)
        return Outcome(finished, without)


@contextmanager
def _text_file(path: Path) -> Iterator[TextIO]:
    with atomic_write(path) as file, file.open("w", encoding="utf-8", newline="") as stream:
        yield stream
