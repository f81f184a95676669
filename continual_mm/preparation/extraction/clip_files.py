"""What a job keeps of each clip: files of features, or a file that says why there are none."""

import json
from collections.abc import Iterable, Mapping, Sequence
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

Part = Literal["media", "text", "both"]
"""What is made of film and sound alone, of text alone, and of both together; a file for each."""

PARTS: tuple[Part, ...] = ("media", "text", "both")

_MARK = 16  # letters


@dataclass(frozen=True, slots=True)
class Names:
    """What the files of a clip are called.

    Attributes:
        parts: By part. A name is another one whenever other features would come out.
        failures: Of the files that may say why the clip has no features: the first whatever words
            have vectors, the last for what comes of the vectors.
    """

    parts: Mapping[Part, str]
    failures: tuple[str, ...]


def part_of(recipe: Recipe) -> Part:
    """What a modality is made of."""
    read = {TOWERS[choice.tower].reads for choice in recipe.towers if choice.tower in TOWERS}
    return "both" if len(read) > 1 else "text" if read == {True} else "media"


class Naming:
    """Names the files of clips.

    A name tells what the clip is called, and of its film and sound which part of which file they
    are, how large that file is and when it was changed; of its text, what it says, and by which
    vectors it becomes numbers. It does not tell the split, group and label, which are told anew by
    the manifest.

    Args:
        recipes: What is made.
        folder: What the clips' paths are relative to.
        vectors: The fingerprint of the word vectors; empty if there are none.

    Attributes:
        mark: What the names of files end with that come of the vectors.
    """

    def __init__(self, recipes: Sequence[Recipe], folder: Path, vectors: str) -> None:
        self.mark = _digest([vectors])[:_MARK] if vectors else ""
        self._folder = folder
        self._made = {
            part: need_vectors(mine)
            for part in PARTS
            if (mine := [recipe for recipe in recipes if part_of(recipe) == part])
        }
        self._states: dict[str, tuple[int, int]] = {}

    def of(self, clip: Clip) -> Names:
        """The names for a clip; one without a file has text alone."""
        film: list[object] = [clip.path, clip.start, clip.end, *self._state(clip)]
        about: dict[Part, list[object]] = {
            "media": film,
            "text": [clip.caption],
            "both": [*film, clip.caption],
        }
        parts: dict[Part, str] = {}
        for part, of_words in self._made.items():
            if clip.path or part == "text":
                name = _digest([part, clip.id, *about[part]])
                parts[part] = self._marked(name) if of_words else name
        failure = _digest([clip.id, *about["both"]])
        return Names(parts, tuple(dict.fromkeys((failure, self._marked(failure)))))

    def _marked(self, name: str) -> str:
        return f"{name}-{self.mark}" if self.mark else name

    def _state(self, clip: Clip) -> tuple[int, int]:
        """Size, and time of the last change, of a clip's file; -1 if it is not to be had."""
        if clip.fault or not clip.path:
            return -1, -1
        if clip.path not in self._states:
            try:
                status = (self._folder / clip.path).stat()
                self._states[clip.path] = status.st_size, status.st_mtime_ns
            except OSError:
                self._states[clip.path] = -1, -1
        return self._states[clip.path]


def superseded(names: Iterable[str], mark: str) -> list[str]:
    """Names of files that come of other vectors than those with a mark.

    >>> superseded(["a", "a-00", "a-11"], "11")
    ['a-00']
    """
    return [name for name in names if "-" in name and not name.endswith(f"-{mark}")]


def _digest(decisive: Sequence[object]) -> str:
    return blake2b(json.dumps(decisive).encode(), digest_size=16).hexdigest()


_FEATURES, _NOTES, _FAILURE = ".safetensors", ".notes.json", ".failure.json"


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that went wrong with a clip.

    Attributes:
        stage: What was being done.
        told: What went wrong.
    """

    stage: str
    told: str


class ClipFiles:
    """The folder with the files of all clips; each is whole or not there.

    Args:
        folder: Of the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def clear(self) -> None:
        """Remove what a killed process left half-written."""
        self._folder.mkdir(parents=True, exist_ok=True)
        remove_temporary(self._folder)

    def supersede(self, mark: str) -> None:
        """Remove what was made with other word vectors than those with a mark."""
        for ending in (_FEATURES, _NOTES, _FAILURE):
            for name in superseded(self._names(ending), mark):
                (self._folder / f"{name}{ending}").unlink(missing_ok=True)

    def kept(self) -> set[str]:
        """Names of the parts that there are."""
        return self._names(_FEATURES)

    def failed(self) -> set[str]:
        """Names under which it is said why a clip has no features."""
        return self._names(_FAILURE)

    def keep(
        self, name: str, features: Mapping[str, NDArray[np.float32]], notes: Sequence[Failure]
    ) -> None:
        """Write a part of a clip's features, and before that what is to be said about them.

        Notes alone mean nothing: whoever is killed between the two has done nothing yet.

        Raises:
            OSError: If there is no room for them.
        """
        self._tell(f"{name}{_NOTES}", notes)
        with atomic_write(self._folder / f"{name}{_FEATURES}") as temporary:
            plain = {key: np.ascontiguousarray(values) for key, values in features.items()}
            # Not by safetensors' own writing, to which a full disk is a fault of the tensors.
            temporary.write_bytes(save(plain))

    def forgive(self, names: Names) -> None:
        """Forget why a clip had no features."""
        for failure in names.failures:
            self._tell(f"{failure}{_FAILURE}", ())

    def give_up(self, failure: str, problem: Failure) -> None:
        """Write why a clip has no features."""
        self._tell(f"{failure}{_FAILURE}", [problem])

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
        """What there is to say about a part that there is."""
        return self._told(f"{name}{_NOTES}")

    def failure(self, failure: str) -> list[Failure]:
        """Why a clip has no features."""
        return self._told(f"{failure}{_FAILURE}")

    def _told(self, name: str) -> list[Failure]:
        path = self._folder / name
        return [Failure(*map(str, entry)) for entry in read_json(path)] if path.exists() else []

    def _names(self, ending: str) -> set[str]:
        return {path.name.removesuffix(ending) for path in self._folder.glob(f"*{ending}")}

    def _tell(self, name: str, problems: Sequence[Failure]) -> None:
        path = self._folder / name
        if problems:
            write_json(path, [[problem.stage, problem.told] for problem in problems])
        else:
            path.unlink(missing_ok=True)
