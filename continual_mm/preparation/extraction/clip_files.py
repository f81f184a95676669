"""What a job stores of each clip: files of features, or one with the reason why there are none."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from continual_mm.preparation.extraction.manifest import Clip
from continual_mm.preparation.extraction.towers import TOWERS, Recipe, need_vectors
from continual_mm.system.errors import InputError, Problem
from continual_mm.system.files import atomic_write, read_json, remove_temporary, write_json

JOB, CLIPS, CLIP_LIST, REPORT = "job.json", "clips", "clips.jsonl", "report.csv"
"""What a job's folder holds: its settings, the clips' files, their list, and what went wrong."""

Part = Literal["media", "text", "both"]
"""Features of video and audio alone, of text alone, and of both together; a file for each."""

PARTS: tuple[Part, ...] = ("media", "text", "both")

_IDENTITY = 16  # letters


@dataclass(frozen=True, slots=True)
class Names:
    """What the files of a clip are called.

    The name of a part changes whenever other features would come out. Two files may say why there
    are no features: the first whatever words have vectors, the last if that depends on the vectors.
    """

    parts: Mapping[Part, str]
    failures: tuple[str, ...]


def part_of(recipe: Recipe) -> Part:
    """What a modality is made of."""
    read = {TOWERS[choice.tower].reads for choice in recipe.towers if choice.tower in TOWERS}
    return "both" if len(read) > 1 else "text" if read == {True} else "media"


class Naming:
    """Names the files of clips.

    A name follows from the clip's id, and for video and audio from which part of which file they
    are, the file's size and when it was changed; for text from the text and the word vectors. It
    does not depend on the split, group and label.

    Attributes:
        vectors: Identifies the word vectors, whose fingerprint is given, if there are any; names
            of files that depend on them end with it.
    """

    def __init__(self, recipes: Sequence[Recipe], folder: Path, vectors: str) -> None:
        self.vectors = _digest([vectors])[:_IDENTITY] if vectors else ""
        self._folder = folder
        self._uses_vectors = {
            part: need_vectors(mine)
            for part in PARTS
            if (mine := [recipe for recipe in recipes if part_of(recipe) == part])
        }
        self._states: dict[str, tuple[int, int]] = {}

    def of(self, clip: Clip) -> Names:
        """The names for a clip; one without a file has text alone."""
        media: list[object] = [clip.path, clip.start, clip.end, *self._state(clip)]
        contents: dict[Part, list[object]] = {
            "media": media,
            "text": [clip.caption],
            "both": [*media, clip.caption],
        }
        ending = f"-{self.vectors}" if self.vectors else ""
        parts = {
            part: _digest([part, clip.id, *contents[part]]) + (ending if uses_vectors else "")
            for part, uses_vectors in self._uses_vectors.items()
            if clip.path or part == "text"
        }
        failure = _digest([clip.id, *contents["both"]])
        return Names(parts, tuple(dict.fromkeys((failure, failure + ending))))

    def _state(self, clip: Clip) -> tuple[int, int]:
        """Size, and time of the last change, of a clip's file; -1 if it is not available."""
        if clip.fault or not clip.path:
            return -1, -1
        if clip.path not in self._states:
            try:
                status = (self._folder / clip.path).stat()
                self._states[clip.path] = status.st_size, status.st_mtime_ns
            except OSError:
                self._states[clip.path] = -1, -1
        return self._states[clip.path]


def _digest(decisive: Sequence[object]) -> str:
    return blake2b(json.dumps(decisive).encode(), digest_size=16).hexdigest()


_FEATURES, _NOTES, _FAILURE = ".safetensors", ".notes.json", ".failure.json"


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that went wrong with a clip, and at which stage."""

    stage: str
    message: str


class ClipFiles:
    """The folder with the files of all clips; each is complete or absent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def clear(self) -> None:
        """Remove what a killed process left half-written."""
        self._folder.mkdir(parents=True, exist_ok=True)
        remove_temporary(self._folder)

    def remove_other_vectors(self, vectors: str) -> None:
        """Remove what was made with other word vectors than those with an identity."""
        for ending in (_FEATURES, _NOTES, _FAILURE):
            for name in self._names(ending):
                if "-" in name and not name.endswith(f"-{vectors}"):
                    (self._folder / f"{name}{ending}").unlink(missing_ok=True)

    def stored(self) -> set[str]:
        """Names of the parts that there are."""
        return self._names(_FEATURES)

    def failed(self) -> set[str]:
        """Names of the failures that there are."""
        return self._names(_FAILURE)

    def write(
        self, name: str, features: Mapping[str, NDArray[np.float32]], notes: Sequence[Failure]
    ) -> None:
        """Write a part of a clip's features, and before that notes, which mean nothing alone."""
        self._write_messages(f"{name}{_NOTES}", notes)
        with atomic_write(self._folder / f"{name}{_FEATURES}") as temporary:
            plain = {key: np.ascontiguousarray(values) for key, values in features.items()}
            # Safetensors' own writing reports a full disk as a fault of the tensors.
            temporary.write_bytes(save(plain))

    def write_failure(self, name: str, failure: Failure) -> None:
        """Write why a clip has no features."""
        self._write_messages(f"{name}{_FAILURE}", [failure])

    def clear_failures(self, names: Names) -> None:
        """Remove why a clip had no features."""
        for name in names.failures:
            self._write_messages(f"{name}{_FAILURE}", ())

    def features(self, name: str) -> dict[str, NDArray[np.float32]]:
        """Read a part of the features of a clip.

        Raises:
            InputError: If its file is damaged.
        """
        path = self._folder / f"{name}{_FEATURES}"
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            remedy = "remove the file and extract again: the other clips are kept"
            raise InputError(Problem(str(path), f"cannot be read: {error}", remedy)) from error

    def notes(self, name: str) -> list[Failure]:
        """Notes about a part that there is."""
        return self._messages(f"{name}{_NOTES}")

    def failure(self, name: str) -> list[Failure]:
        """Why a clip has no features."""
        return self._messages(f"{name}{_FAILURE}")

    def _messages(self, name: str) -> list[Failure]:
        path = self._folder / name
        return [Failure(*map(str, entry)) for entry in read_json(path)] if path.exists() else []

    def _names(self, ending: str) -> set[str]:
        return {path.name.removesuffix(ending) for path in self._folder.glob(f"*{ending}")}

    def _write_messages(self, name: str, messages: Sequence[Failure]) -> None:
        path = self._folder / name
        if messages:
            write_json(path, [[each.stage, each.message] for each in messages])
        else:
            path.unlink(missing_ok=True)


def is_finished(parts: Collection[str], stored: Collection[str]) -> bool:
    """Whether all parts of a clip are stored; a clip of no parts is never finished."""
    return bool(parts) and all(name in stored for name in parts)
