"""The job: every clip of a manifest through the towers, into a folder; it goes on where it ended.

Imports neither torch nor av before it has work for them.
"""

import csv
import json
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from continual_mm.preparation.extraction.clip_files import ClipFiles, Failure, Names, Naming
from continual_mm.preparation.extraction.listener import ExtractionListener
from continual_mm.preparation.extraction.manifest import Clip, Manifest
from continual_mm.preparation.extraction.towers import (
    Recipe,
    check_recipes,
    modules_of,
    need_vectors,
)
from continual_mm.system.errors import InputError, Problem
from continual_mm.system.files import atomic_write, differences, locked, write_json
from continual_mm.system.imports import check_installed, late
from continual_mm.system.processes import Died, Pool, Result, Worker

if TYPE_CHECKING:
    from continual_mm.preparation.extraction.towers import Vectors
    from continual_mm.preparation.extraction.worker import Job, Task


def check_settings(path: Path, modalities: Mapping[str, Any]) -> None:
    """Write what is extracted, or check that the folder is for the same.

    Raises:
        InputError: If it is for something else, with every difference.
    """
    wanted = {"version": 2, "modalities": modalities}
    if not path.exists():
        write_json(path, wanted)
        return
    remedy = "choose another --to, or the settings of before"
    if found := differences(path, wanted):
        raise InputError([Problem(str(path), difference, remedy) for difference in found])


JOB, CLIPS, CLIP_LIST, REPORT = "job.json", "clips", "clips.jsonl", "report.csv"
"""What a job's folder holds: its settings, the clips' files, their list, and what went wrong."""

LISTED = ("files", "id", "split", "group", "label", "text")
"""What the list says of each clip; null where it is not known."""

_LOCK = "extraction.lock"
_WORKER = "preparation.extraction.worker"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended.

    Attributes:
        finished: Clips that have features, now or from earlier calls.
        failed: Clips that have none; ``report.csv`` says why.
    """

    finished: int
    failed: int


def extract(
    manifest: Manifest,
    recipes: Sequence[Recipe],
    out: Path,
    *,
    vectors: "Vectors | None" = None,
    workers: int = 1,
    device: str = "cpu",
    retry: bool = False,
    listener: ExtractionListener | None = None,
) -> Outcome:
    """Extract the features of every clip into a folder, or go on with it.

    Each clip has a file of its own that is whole or not there, so that the job may be killed at any
    moment. What comes out is the same, bit for bit, however many processes do it and however often
    it was begun. A clip that cannot be decoded is listed in ``report.csv`` and ends nothing.

    Args:
        manifest: The clips.
        recipes: What is made of them.
        out: The folder; ``records.records`` reads its features.
        vectors: Word vectors; without any they are trained on the captions of the training clips.
        workers: Processes, each with towers of its own; 0 works in this process.
        device: Where networks run.
        retry: Whether clips that failed earlier are tried again.
        listener: Who hears of the progress, in this process.

    Returns:
        How many clips have features.

    Raises:
        InputError: If a tower cannot be made, the folder holds another job or cannot be written,
            or another process is at work in it.
    """
    check_recipes(tuple(recipes))
    check_installed("av", "extraction")
    listener = listener or ExtractionListener()
    try:
        with locked(out / _LOCK):
            return _Extraction(manifest, out, retry, listener).work(
                tuple(recipes), vectors, workers, device
            )
    except OSError as error:
        problem = f"cannot be written: {error.strerror or error}"
        remedy = "make room there, or choose another --to"
        raise InputError(Problem(str(out), problem, remedy)) from error


class _Extraction:
    """A call of :func:`extract`, inside its lock."""

    def __init__(
        self, manifest: Manifest, out: Path, retry: bool, listener: ExtractionListener
    ) -> None:
        self._manifest = manifest
        self._out = out
        self._retry = retry
        self._listener = listener
        self._files = ClipFiles(out / CLIPS)
        self._names: list[Names] = []

    def work(
        self, recipes: tuple[Recipe, ...], vectors: "Vectors | None", workers: int, device: str
    ) -> Outcome:
        """Do what is left to do."""
        self._listener.prepares(workers)
        worker = late(_WORKER)
        known = self._known(vectors) if need_vectors(recipes) else None
        job = worker.Job(recipes, known, device, self._manifest.folder, self._out / CLIPS)
        extractor = worker.Extractor(job)
        check_settings(self._out / JOB, extractor.contents())
        self._files.clear()
        naming = Naming(recipes, self._manifest.folder, known.fingerprint if known else "")
        self._names = [naming.of(clip) for clip in self._manifest.clips]
        self._list()
        self._files.supersede(naming.mark)
        left = self._left()
        self._listener.begins(len(self._names), len(left))
        try:
            if workers and left:
                del extractor  # each of them has its own
                self._in_processes(job, left, workers)
            else:
                self._in_turn(extractor, left)
        except BaseException:
            with suppress(OSError):  # the first reason is the better one
                self._report()
            raise
        outcome = self._report()
        self._listener.ends(outcome.finished, outcome.failed)
        return outcome

    def _known(self, vectors: "Vectors | None") -> "Vectors":
        """Vectors of the words that occur; without any given they are trained on the captions."""
        if vectors is None:
            from continual_mm.preparation.extraction.word_towers import (  # noqa: PLC0415
                corpus_vectors,
            )

            vectors = corpus_vectors(self._manifest)
        texts = (clip.caption or "" for clip in self._manifest.clips)
        from continual_mm.preparation.extraction.word_towers import needed  # noqa: PLC0415

        known: Vectors = needed(vectors, texts)
        return known

    def _left(self) -> list["Task"]:
        kept = self._files.kept()
        failed = set() if self._retry else self._files.failed()
        made: type[Task] = late(_WORKER).Task
        tasks = (
            made(clip, names, tuple(part for part in names.parts if names.parts[part] not in kept))
            for clip, names in zip(self._manifest.clips, self._names, strict=True)
        )
        return [
            task
            for task in tasks
            if not is_finished(task.names.parts.values(), kept)
            and failed.isdisjoint(task.names.failures)
        ]

    def _in_turn(self, extractor: Any, left: list["Task"]) -> None:
        for task in left:
            self._ended(task, extractor.extract(task))

    def _in_processes(self, job: "Job", left: list["Task"], workers: int) -> None:
        """A clip that ends a process is tried once more, after the others."""
        waiting, lost = deque(left), set[str]()
        worker = Worker(f"continual_mm.{_WORKER}:extractor", (job,), modules_of(job.recipes))
        with Pool["Task"](worker, size=min(workers, len(left)), threads=1) as pool:
            for task, event in pool.run(lambda: waiting.popleft() if waiting else None):
                if isinstance(event, Result):
                    self._ended(task, event.value)
                elif isinstance(event, Died) and task.clip.id in lost:
                    failure = Failure("process", event.reason)
                    self._files.give_up(task.names.failures[0], failure)
                    self._ended(task, failure)
                else:
                    lost.add(task.clip.id)
                    waiting.append(task)

    def _ended(self, task: "Task", failure: Failure | None) -> None:
        if failure is None:
            self._listener.finished(task.clip.id)
        else:
            self._listener.failed(task.clip.id, failure.told)

    def _list(self) -> None:
        """Write which clips there are, for who reads the features."""
        with (
            atomic_write(self._out / CLIP_LIST) as temporary,
            temporary.open("w", encoding="utf-8") as stream,
        ):
            stream.writelines(map(_listed, self._names, self._manifest.clips))

    def _report(self) -> Outcome:
        """Write what went wrong, and count."""
        kept, failed = self._files.kept(), self._files.failed()
        rows, finished, given_up = [], 0, 0
        for clip, names in zip(self._manifest.clips, self._names, strict=True):
            parts = [*names.parts.values()]
            reasons = [name for name in names.failures if name in failed]
            if is_finished(parts, kept):
                finished += 1
                outcome, told = (
                    "noted",
                    [each for part in parts for each in self._files.notes(part)],
                )
            else:
                given_up += bool(reasons)
                outcome = "failed"
                told = [each for name in reasons for each in self._files.failure(name)]
            rows += [(clip.id, clip.path, outcome, each.stage, each.told) for each in told]
        with (
            atomic_write(self._out / REPORT) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as stream,
        ):
            table = csv.writer(stream)
            table.writerow(("id", "path", "outcome", "stage", "problem"))
            table.writerows(rows)
        return Outcome(finished, given_up)


def is_finished(parts: Collection[str], kept: Collection[str]) -> bool:
    """Whether all parts of a clip are among those that there are; one of no parts never is."""
    return bool(parts) and all(name in kept for name in parts)


def _listed(names: Names, clip: Clip) -> str:
    about = [*names.parts.values()], clip.id, clip.split, clip.group, clip.label, clip.caption
    return json.dumps(dict(zip(LISTED, about, strict=True)), ensure_ascii=False) + "\n"
