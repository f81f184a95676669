"""What a job's folder holds: files of every clip, named by what they were made of, as records."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from continual_mm.definitions.modality import Kind
from continual_mm.preparation.extraction.manifest import Clip
from continual_mm.preparation.extraction.towers import Recipe, need_vectors, registered
from continual_mm.system.errors import InputError
from continual_mm.system.files import atomic_write, read_json, remove_temporary, write_json

JOB, CLIPS, CLIP_LIST, REPORT = "job.json", "clips", "clips.jsonl", "report.csv"
"""What a job's folder holds: its settings, the clips' files, their list, and what went wrong."""

FEATURES, NOTES, FAILURE = ".safetensors", ".notes.json", ".failure.json"
"""Endings of a clip's files: features of a part, notes about them, or why there are none."""

Part = Literal["media", "text", "both"]
"""Features of video and audio alone, of text alone, and of both together; a file for each."""

PARTS: tuple[Part, ...] = ("media", "text", "both")

_IDENTITY = 16  # letters


def part_of(recipe: Recipe) -> Part:
    """What a modality is made of."""
    read = {registered(choice.tower).reads for choice in recipe.towers}
    return "both" if len(read) > 1 else "text" if read == {True} else "media"


@dataclass(frozen=True, slots=True)
class Names:
    """What the files of a clip are called, without endings: by all that decides their features.

    Of ``failures`` the first holds whatever words have vectors, the last for these vectors.
    """

    parts: Mapping[Part, str]
    failures: tuple[str, ...]


class Naming:
    """Names a clip's files by its id and what decides their features, not by split, group or label.

    That is which part of which file, its size and when it was changed, the text, and ``vectors``,
    an identity of the word vectors, with which the names of files that depend on them end.
    """

    def __init__(self, recipes: Sequence[Recipe], folder: Path, fingerprint: str) -> None:
        self.vectors = _digest([fingerprint])[:_IDENTITY] if fingerprint else ""
        self._folder = folder
        by_part = {part: [one for one in recipes if part_of(one) == part] for part in PARTS}
        self._uses_vectors = {part: need_vectors(mine) for part, mine in by_part.items() if mine}
        self._states: dict[str, tuple[int, int]] = {}

    def of(self, clip: Clip, *, first: str = "") -> Names:
        """The names for a clip; one without a file has text alone.

        Of clips that show the same, such as rows for several captions, all have the media of the
        ``first`` by its id.
        """
        media: list[object] = [clip.path, clip.start, clip.end, *self._state(clip, clip.path)]
        if clip.cloud:
            media += [clip.cloud, *self._state(clip, clip.cloud)]
        contents: dict[Part, list[object]] = {
            "media": media,
            "text": [clip.caption],
            "both": [*media, clip.caption],
        }
        ending = f"-{self.vectors}" if self.vectors else ""
        parts = {
            part: _digest([part, (part == "media" and first) or clip.id, *contents[part]])
            + (ending if uses_vectors else "")
            for part, uses_vectors in self._uses_vectors.items()
            if clip.path or part == "text"
        }
        failure = _digest([clip.id, *contents["both"]])
        return Names(parts, tuple(dict.fromkeys((failure, failure + ending))))

    def _state(self, clip: Clip, path: str) -> tuple[int, int]:
        """Size, and time of the last change, of a clip's file; -1 if it is not available."""
        if clip.fault or not path:
            return -1, -1
        if path not in self._states:
            try:
                status = (self._folder / path).stat()
                self._states[path] = status.st_size, status.st_mtime_ns
            except OSError:
                self._states[path] = -1, -1
        return self._states[path]


def _digest(decisive: Sequence[object]) -> str:
    return blake2b(json.dumps(decisive).encode(), digest_size=16).hexdigest()


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
        for ending in (FEATURES, NOTES, FAILURE):
            for name in self.names(ending):
                if "-" in name and not name.endswith(f"-{vectors}"):
                    (self._folder / f"{name}{ending}").unlink(missing_ok=True)

    def names(self, ending: str) -> set[str]:
        """Names of all files with an ending."""
        return {path.name.removesuffix(ending) for path in self._folder.glob(f"*{ending}")}

    def is_stored(self, name: str) -> bool:
        """Whether a part of a clip has its features."""
        return (self._folder / f"{name}{FEATURES}").exists()

    def write(
        self, name: str, features: Mapping[str, NDArray[np.float32]], notes: Sequence[Failure]
    ) -> None:
        """Write a part of a clip's features, and before that notes, which mean nothing alone."""
        self.write_messages(name, NOTES, notes)
        with atomic_write(self._folder / f"{name}{FEATURES}") as temporary:
            plain = {key: np.ascontiguousarray(values) for key, values in features.items()}
            # Safetensors' own writing reports a full disk as a fault of the tensors.
            temporary.write_bytes(save(plain))

    def features(self, name: str) -> dict[str, NDArray[np.float32]]:
        """Read a part of the features of a clip."""
        path = self._folder / f"{name}{FEATURES}"
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            remedy = "remove the file and extract again: the other clips are kept"
            raise InputError.at(path, f"cannot be read: {error}", remedy) from error

    def write_messages(self, name: str, ending: str, messages: Sequence[Failure]) -> None:
        """Write notes or a failure, or remove the file if there are none."""
        path = self._folder / f"{name}{ending}"
        if messages:
            write_json(path, [[each.stage, each.message] for each in messages])
        else:
            path.unlink(missing_ok=True)

    def messages(self, name: str, ending: str) -> list[Failure]:
        """Read notes or a failure, if there are any."""
        path = self._folder / f"{name}{ending}"
        return [Failure(*map(str, entry)) for entry in read_json(path)] if path.exists() else []


def is_finished(parts: Collection[str], stored: Collection[str]) -> bool:
    """Whether all parts of a clip are stored; a clip of no parts is never finished."""
    return bool(parts) and all(name in stored for name in parts)


@dataclass(frozen=True, slots=True)
class Extracted:
    """A modality that a job made: features of a vector or time step, and which towers made it."""

    kind: Kind
    features: int
    description: str


def contents(out: Path) -> dict[str, Extracted]:
    """By modality, what a job's folder holds."""
    if not (out / JOB).exists():
        raise InputError.at(out, "is no folder that an extraction wrote", "extract into it first")
    return {
        name: Extracted(Kind(entry["kind"]), int(entry["features"]), str(entry["told"]))
        for name, entry in read_json(out / JOB)["modalities"].items()
    }


def records(out: Path) -> Iterator[dict[str, Any]]:
    """Items of a dataset: every clip that has features, in the order of the manifest."""
    modalities = contents(out)
    files = ClipFiles(out / CLIPS)
    stored = files.names(FEATURES)
    with (out / CLIP_LIST).open(encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            if not is_finished(entry["files"], stored):
                continue
            features = {
                modality: values
                for name in entry["files"]
                for modality, values in files.features(name).items()
            }
            known = {"group": entry["group"], "label": entry["label"], "text_raw": entry["text"]}
            yield {
                "ids": entry["id"],
                "split": entry["split"],
                **{name: value for name, value in known.items() if value is not None},
                **{name: features[name] for name in modalities if name in features},
            }
