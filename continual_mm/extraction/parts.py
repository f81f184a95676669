"""Which features of a clip depend on what, so that nothing is made again that has not changed."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal

from continual_mm.extraction.clips import Clip
from continual_mm.extraction.recipe import Recipe
from continual_mm.extraction.registry import TOWERS, need_vectors

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
