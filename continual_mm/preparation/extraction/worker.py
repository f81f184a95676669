"""Extracts clips one after another, in this process or in one of a pool; imports av and torch."""

from collections.abc import Callable
from typing import Any

from continual_mm.preparation.extraction.clip_features import (
    DECODING,
    FAULTS,
    READING,
    ClipEncoder,
    ClipError,
    ClipFeatures,
    kind_of,
)
from continual_mm.preparation.extraction.clip_files import CLIPS, ClipFiles, Failure
from continual_mm.preparation.extraction.job import Job, Task
from continual_mm.preparation.extraction.towers import Recipe, Tower, probe
from continual_mm.system.errors import InputError, Problem, first_line


class Extractor:
    """Extracts clips into their files.

    Args:
        job: What they have in common.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._files = ClipFiles(job.out / CLIPS)
        self._encoder = ClipEncoder(job.recipes, job.vectors, job.device)

    def contents(self) -> dict[str, Any]:
        """Try all towers, and describe their outputs, by modality, as JSON.

        Raises:
            InputError: If one does not work.
        """
        return {recipe.modality: _contents(recipe, mine) for recipe, mine in self._encoder.towers}

    def extract(self, task: Task) -> Failure | None:
        """Extract what is missing of a clip.

        Returns:
            Why it has no features; None if it has.

        Raises:
            InputError: If nothing can be written.
        """
        try:
            try:
                features = self._encoder.encode(task.clip, self._job.media, task.missing)
                if features.is_empty and not self._has_more(task):
                    raise self._encoder.nothing_found(task.clip, features)
            except ClipError as error:
                failure = Failure(error.stage, error.message)
                name = task.names.failures[-1 if error.stage == READING else 0]
                self._files.write_failure(name, failure)
                return failure
            self._write(task, features)
        except OSError as error:
            raise self._job.stopped(f"cannot be written: {error.strerror or error}") from error
        return None

    def _has_more(self, task: Task) -> bool:
        """Whether a clip has features that were made earlier."""
        earlier = [name for part, name in task.names.parts.items() if part not in task.missing]
        return any(self._files.features(name) for name in earlier)

    def _write(self, task: Task, found: ClipFeatures) -> None:
        decoding = [Failure(DECODING, note) for note in found.notes]
        reading = [Failure(READING, found.unread)] if found.unread else []
        for part, features in found.parts.items():
            notes = {"media": decoding, "text": reading, "both": [*decoding, *reading]}[part]
            self._files.write(task.names.parts[part], features, notes)
        self._files.clear_failures(task.names)


def _contents(recipe: Recipe, towers: list[Tower]) -> dict[str, Any]:
    chosen = list(zip(recipe.towers, towers, strict=True))
    for choice, tower in chosen:
        try:
            probe(tower)
        except (AssertionError, *FAULTS) as error:
            place = f"modality {recipe.modality!r}, tower {choice.tower!r}"
            problem, remedy = f"does not work: {first_line(error)}", "keep its default options"
            raise InputError(Problem(place, problem, remedy)) from error
    return {
        "kind": str(kind_of(recipe, towers)),
        "features": sum(tower.features for tower in towers),
        "told": " and ".join(tower.description for tower in towers),
        "pool": recipe.pool,
        "towers": [{"tower": choice.tower, **tower.settings} for choice, tower in chosen],
    }


def extractor(job: Job) -> Callable[[Task, object], Failure | None]:
    """What a process of a pool does with each task.

    Raises:
        InputError: If a tower does not work in it.
    """
    try:
        made = Extractor(job)
    except InputError:
        raise
    except FAULTS as error:
        raise job.stopped(first_line(error)) from error
    return lambda task, _: made.extract(task)
