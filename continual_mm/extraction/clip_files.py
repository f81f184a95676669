"""What a job keeps of each clip: files of features, or a file that says why there are none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.extraction.parts import Names, superseded
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
        self, name: str, features: Mapping[str, NDArray[np.float32]], notes: Sequence[Problem]
    ) -> None:
        """Write a part of a clip's features, and before that what is to be said about them.

        Notes alone mean nothing: whoever is killed between the two has done nothing yet.

        Raises:
            OSError: If there is no room for them.
        """
        self._tell(f"{name}{_NOTES}", notes)
        with written(self._folder / f"{name}{_FEATURES}") as temporary:
            plain = {key: np.ascontiguousarray(values) for key, values in features.items()}
            # Not by safetensors' own writing, to which a full disk is a fault of the tensors.
            temporary.write_bytes(save(plain))

    def forgive(self, names: Names) -> None:
        """Forget why a clip had no features."""
        for failure in names.failures:
            self._tell(f"{failure}{_FAILURE}", ())

    def give_up(self, failure: str, problem: Problem) -> None:
        """Write why a clip has no features."""
        self._tell(f"{failure}{_FAILURE}", [problem])

    def features(self, name: str) -> dict[str, NDArray[np.float32]]:
        """Read a part of the features of a clip.

        Raises:
            RefusedError: If its file is damaged.
        """
        path = self._folder / f"{name}{_FEATURES}"
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            remedy = "remove the file and extract again: the other clips are kept"
            raise RefusedError(Complaint(str(path), f"cannot be read: {error}", remedy)) from error

    def notes(self, name: str) -> list[Problem]:
        """What there is to say about a part that there is."""
        return self._told(f"{name}{_NOTES}")

    def failure(self, failure: str) -> list[Problem]:
        """Why a clip has no features."""
        return self._told(f"{failure}{_FAILURE}")

    def _told(self, name: str) -> list[Problem]:
        path = self._folder / name
        return [Problem(*map(str, entry)) for entry in read_json(path)] if path.exists() else []

    def _names(self, ending: str) -> set[str]:
        return {path.name.removesuffix(ending) for path in self._folder.glob(f"*{ending}")}

    def _tell(self, name: str, problems: Sequence[Problem]) -> None:
        path = self._folder / name
        if problems:
            write_json(path, [[problem.stage, problem.told] for problem in problems])
        else:
            path.unlink(missing_ok=True)
