"""Where a run keeps what: one folder per scenario, strategy and seed."""

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual_mm.arrivals import Arrival
from continual_mm.complaint import Complaint, RefusedError
from continual_mm.definitions import Scenario, Strategy
from continual_mm.learning.drift import Geometry
from continual_mm.learning.evaluation import Evaluation
from continual_mm.modality import DatasetCard
from continual_mm.runs.files import read_json, write_json, written
from continual_mm.runs.history import History, Score

PACKAGES = ("continual-mm", "torch", "avalanche-lib", "POT", "numpy", "gensim", "librosa")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run.

    ``definition.json`` scenario, strategy, seed and data as they were when the run began;
    ``versions.json`` the packages; ``scores.json`` every evaluation and how the space moved;
    ``ranks/stage-N.npz`` the rank of every query at the end of stage N; ``cost.json`` seconds,
    steps and bytes; ``events/`` for TensorBoard; ``checkpoints/stage-N/`` the space and everything
    needed to go on.
    """

    path: Path

    @property
    def events(self) -> Path:
        """TensorBoard's files."""
        return self.path / "events"

    def checkpoint(self, stage: int) -> Path:
        """The checkpoint after a 1-based stage."""
        return self.path / "checkpoints" / f"stage-{stage}"

    def finished_stages(self) -> list[int]:
        """1-based stages with a checkpoint, ascending."""
        found = (self.path / "checkpoints").glob("stage-*")
        return sorted(int(path.name.removeprefix("stage-")) for path in found)

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return (self.path / "cost.json").is_file()

    def claim(self, definition: Mapping[str, Any]) -> None:
        """Make the folder this definition's, or see that it is.

        Raises:
            RefusedError: If another definition was run here.
        """
        file = self.path / "definition.json"
        if file.exists():
            differences = list(_differences(read_json(file), _as_json(definition)))
            if differences:
                remedy = "choose another --out, or remove the folder"
                problem = f"was begun with another definition: {'; '.join(differences[:5])}"
                raise RefusedError(Complaint(str(self.path), problem, remedy))
            return
        write_json(self.path / "versions.json", versions())
        write_json(file, definition)

    def write_scores(self, history: History, identity: Mapping[str, Any]) -> None:
        """Write ``scores.json``."""
        known = history.roles
        roles = dict.fromkeys(known.old, "old")
        roles |= dict.fromkeys(known.new, "new") | dict.fromkeys(known.emergent, "emergent")
        write_json(
            self.path / "scores.json",
            {
                **identity,
                "stages": [_stage(arrival) for arrival in history.arrivals],
                "pairs": {
                    str(pair): {"birth": birth + 1, "role": roles[pair]}
                    for pair, birth in history.births.items()
                },
                "evaluations": [score.as_json() for score in history.scores],
                "geometry": [geometry.as_json() for geometry in history.geometry],
            },
        )

    def write_cost(self, cost: Mapping[str, Any]) -> None:
        """Write ``cost.json``; it says that the run is finished."""
        write_json(self.path / "cost.json", cost)

    def read_scores(self) -> list[Score]:
        """The scores written so far."""
        file = self.path / "scores.json"
        if not file.exists():
            return []
        return [Score.from_json(record) for record in read_json(file)["evaluations"]]

    def read_geometry(self) -> list[Geometry]:
        """The geometry written so far; none in a folder of an older version."""
        file = self.path / "scores.json"
        if not file.exists():
            return []
        return [Geometry.from_json(record) for record in read_json(file).get("geometry", [])]

    def write_ranks(self, stage: int, evaluations: Iterable[Evaluation]) -> None:
        """Write the rank of every query at the end of a 1-based stage.

        Keys are ``test/audio-video/rows`` (dataset rows) and ``test/audio-video/audio to video``.
        """
        arrays: dict[str, NDArray[Any]] = {}
        for evaluation in evaluations:
            for found in evaluation.pairs:
                start = f"{evaluation.split}/{found.pair}"
                arrays[f"{start}/rows"] = found.rows
                for direction, ranks in found.ranks.items():
                    arrays[f"{start}/{' to '.join(direction)}"] = ranks
        path = self.path / "ranks" / f"stage-{stage}.npz"
        with written(path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]


def definition(
    scenario: Scenario, strategy: Strategy, card: DatasetCard, seed: int
) -> dict[str, Any]:
    """What decides a run's numbers. Descriptions and where the data lie do not."""
    return {
        "scenario": scenario.model_dump(mode="json", exclude={"description", "folder"}),
        "strategy": strategy.model_dump(mode="json", exclude={"description"}),
        "data": {
            "name": card.name,
            "fingerprint": card.fingerprint,
            "items": list(card.items),
            "modalities": {m.name: [str(m.kind), list(m.shape)] for m in card.modalities},
        },
        "seed": seed,
    }


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def _stage(arrival: Arrival) -> dict[str, Any]:
    return {
        "stage": arrival.stage + 1,
        "added": [modality.name for modality in arrival.added],
        "available": [modality.name for modality in arrival.available],
        "trained": [str(pair) for pair in arrival.trained],
    }


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _as_json(inner) for key, inner in value.items()}
    return [_as_json(inner) for inner in value] if isinstance(value, list | tuple) else value


def _differences(old: Any, new: Any, where: str = "") -> Iterable[str]:
    """Sentences on where two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            inner = f"{where}.{key}" if where else key
            yield from _differences(old.get(key), new.get(key), inner)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, (before, now) in enumerate(zip(old, new, strict=True), start=1):
            yield from _differences(before, now, f"{where}[{place}]")
    elif old != new:
        yield f"{where} was {old!r}, is {new!r}"
