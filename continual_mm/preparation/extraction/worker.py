"""Extracts clips one after another, here or in a process of its own; imports av."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from continual_mm.preparation.extraction.clip_files import ClipFiles, Failure, Names, Part
from continual_mm.preparation.extraction.describe import (
    DECODING,
    FAULTS,
    READING,
    DescribeError,
    Describer,
    Description,
    kind_of,
)
from continual_mm.preparation.extraction.manifest import Clip
from continual_mm.preparation.extraction.towers import Recipe, Tower, Vectors, probe
from continual_mm.system.errors import InputError, Problem


class Task(NamedTuple):
    """What is to be done.

    Attributes:
        clip: The clip.
        names: Of its files.
        left: The parts that are not there yet.
    """

    clip: Clip
    names: Names
    left: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """What all clips have in common; it travels to other processes.

    Attributes:
        recipes: What is made.
        vectors: Of the words that occur, if a tower takes words.
        device: Where networks run.
        media: What the clips' paths are relative to.
        clips: Where the clips' files go.
    """

    recipes: tuple[Recipe, ...]
    vectors: Vectors | None
    device: str
    media: Path
    clips: Path

    def stopped(self, problem: str) -> InputError:
        """What to raise where no other clip could do better."""
        remedy = "mend that and extract again: what is finished is kept"
        return InputError(Problem(str(self.clips.parent), problem, remedy))


class Extractor:
    """Extracts clips.

    Args:
        job: What they have in common.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._files = ClipFiles(job.clips)
        self._describer = Describer(job.recipes, job.vectors, job.device)

    def contents(self) -> dict[str, Any]:
        """Try all towers, and tell what they give, by modality, as JSON.

        Raises:
            InputError: If one does not work.
        """
        return {recipe.modality: _contents(recipe, made) for recipe, made in self._describer.made}

    def extract(self, task: Task) -> Failure | None:
        """Extract what is left of a clip into its files.

        Returns:
            Why it has no features; None if it has.

        Raises:
            InputError: If nothing can be written.
        """
        try:
            try:
                description = self._describer.describe(task.clip, self._job.media, task.left)
                if description.is_empty and not self._has_more(task):
                    raise self._describer.lacks_all(task.clip, description)
            except DescribeError as error:
                return self._given_up(task.names, Failure(error.stage, error.problem))
            self._keep(task, description)
        except OSError as error:
            raise self._job.stopped(f"cannot be written: {error.strerror or error}") from error
        return None

    def _has_more(self, task: Task) -> bool:
        """Whether a clip has features that were made earlier."""
        there = [name for part, name in task.names.parts.items() if part not in task.left]
        return any(self._files.features(name) for name in there)

    def _keep(self, task: Task, description: Description) -> None:
        decoding = [Failure(DECODING, note) for note in description.notes]
        reading = [Failure(READING, description.unread)] if description.unread else []
        for part, features in description.features.items():
            notes = {"media": decoding, "text": reading, "both": [*decoding, *reading]}[part]
            self._files.keep(task.names.parts[part], features, notes)
        self._files.forgive(task.names)

    def _given_up(self, names: Names, problem: Failure) -> Failure:
        failure = names.failures[-1 if problem.stage == READING else 0]
        self._files.give_up(failure, problem)
        return problem


def _contents(recipe: Recipe, towers: list[Tower]) -> dict[str, Any]:
    chosen = list(zip(recipe.towers, towers, strict=True))
    for choice, tower in chosen:
        try:
            probe(tower)
        except (AssertionError, *FAULTS) as error:
            place = f"modality {recipe.modality!r}, tower {choice.tower!r}"
            told = next(iter(str(error).strip().splitlines()), type(error).__name__)
            remedy = "leave its options at their defaults"
            raise InputError(Problem(place, f"does not work: {told}", remedy)) from error
    return {
        "kind": str(kind_of(recipe, towers)),
        "features": sum(tower.features for tower in towers),
        "told": " and ".join(tower.told for tower in towers),
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
        told = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise job.stopped(told) from error
    return lambda task, _: made.extract(task)
