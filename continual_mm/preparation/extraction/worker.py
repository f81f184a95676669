"""Extracts clips one after another, here or in a process of its own; imports av."""

import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
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


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a clip.

    Attributes:
        failure: Why it has no features; None if it has.
        stops: Whether no other clip could do better: the features cannot be written.
    """

    failure: Failure | None = None
    stops: bool = False


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

    def extract(self, task: Task) -> Answer:
        """Extract what is left of a clip into its files."""
        try:
            try:
                description = self._describer.describe(task.clip, self._job.media, task.left)
                if description.is_empty and not self._has_more(task):
                    raise self._describer.lacks_all(task.clip, description)
            except DescribeError as error:
                return self._given_up(task.names, Failure(error.stage, error.problem))
            self._keep(task, description)
        except OSError as error:
            return _stopped(error)
        return Answer()

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

    def _given_up(self, names: Names, problem: Failure) -> Answer:
        failure = names.failures[-1 if problem.stage == READING else 0]
        self._files.give_up(failure, problem)
        return Answer(problem)


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


def _stopped(error: OSError) -> Answer:
    return Answer(Failure("writing", f"cannot be written: {error.strerror or error}"), stops=True)


def serve(connection: Connection, job: Job) -> None:
    """Extract the clips that come through a connection until nobody is there any more.

    Args:
        connection: Gives tasks; takes an :class:`Answer` for each.
        job: What the clips have in common.
    """
    # As an exception SIGTERM leaves no half-written file behind; Ctrl-C is for who started this.
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        extractor = Extractor(job)
    except (InputError, *FAULTS) as error:
        told = next(iter(str(error).strip().splitlines()), type(error).__name__)
        with suppress(OSError):
            connection.send(Answer(Failure("towers", told), stops=True))
        return
    while True:
        try:
            task: Task = connection.recv()
            connection.send(extractor.extract(task))
        except (EOFError, OSError):
            return


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
