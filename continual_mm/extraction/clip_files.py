"""What a job keeps of each clip: a file of features, or a file that says why there is none."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.extraction.clips import Clip
from continual_mm.runs.files import clear_temporary, read_json, write_json, written

_FEATURES, _NOTES, _FAILURE = ".safetensors", ".notes.json", ".failure.json"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that went wrong with a clip.

    Attributes:
        stage: What was being done.
        told: What went wrong.
    """

    stage: str
    told: str


def key_of(clip: Clip, folder: Path) -> str:
    """What a clip's files are called: another name whenever other features would come out.

    That is what the clip is called, which part of which file it is, how large that file is, and
    what is said in it; not the split, group and label, which are told anew by the manifest.
    """
    try:
        size = (folder / clip.path).stat().st_size
    except OSError:
        size = -1
    decisive = [clip.id, clip.path, clip.start, clip.end, clip.caption, size]
    return blake2b(json.dumps(decisive).encode(), digest_size=16).hexdigest()


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
        clear_temporary(self._folder)

    def finished(self) -> set[str]:
        """Keys of the clips that have features."""
        return self._keys(_FEATURES)

    def failed(self) -> set[str]:
        """Keys of the clips that have none, for a known reason."""
        return self._keys(_FAILURE) - self.finished()

    def keep(
        self, key: str, features: Mapping[str, NDArray[np.float32]], notes: Sequence[Problem]
    ) -> None:
        """Write the features of a clip, and before that what is to be said about them.

        Notes alone mean nothing: whoever is killed between the two has done nothing yet.
        """
        self._tell(f"{key}{_NOTES}", notes)
        with written(self._folder / f"{key}{_FEATURES}") as temporary:
            plain = {name: np.ascontiguousarray(values) for name, values in features.items()}
            save_file(plain, temporary)
        self._tell(f"{key}{_FAILURE}", ())

    def give_up(self, key: str, problem: Problem) -> None:
        """Write why a clip has no features."""
        self._tell(f"{key}{_FAILURE}", [problem])

    def features(self, key: str) -> dict[str, NDArray[np.float32]]:
        """Read the features of a clip.

        Raises:
            RefusedError: If its file is damaged.
        """
        path = self._folder / f"{key}{_FEATURES}"
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            remedy = "remove the file and extract again: the other clips are kept"
            raise RefusedError(Complaint(str(path), f"cannot be read: {error}", remedy)) from error

    def problems(self, key: str) -> list[Problem]:
        """What went wrong with a clip, with or without features."""
        finished = (self._folder / f"{key}{_FEATURES}").exists()
        path = self._folder / f"{key}{_NOTES if finished else _FAILURE}"
        if not path.exists():
            return []
        return [Problem(*map(str, entry)) for entry in read_json(path)]

    def _keys(self, ending: str) -> set[str]:
        return {path.name.removesuffix(ending) for path in self._folder.glob(f"*{ending}")}

    def _tell(self, name: str, problems: Sequence[Problem]) -> None:
        path = self._folder / name
        if problems:
            write_json(path, [[problem.stage, problem.told] for problem in problems])
        else:
            path.unlink(missing_ok=True)
