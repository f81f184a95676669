"""What a scenario takes from earlier training, found without loading it or importing torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from continual_mm.definitions.arrivals import Start
from continual_mm.definitions.modality import Kind, Modality, Pair
from continual_mm.definitions.scenario import Scenario, SpaceSettings, TowerSettings
from continual_mm.runs.folder import RunFolder
from continual_mm.system.errors import InputError, Problem
from continual_mm.system.files import read_json

SIZES = ("mode", "dim", "clusters", "width", "depth", "reconstruction_width")
"""What cannot be changed once there are weights."""

REMEDY = "give the folder of a seed, such as runs/av_vt/naive/seed-0"


@dataclass(frozen=True, slots=True)
class Origin:
    """An earlier run as far as its last finished stage, whose checkpoint it names.

    ``space`` is what the space says of itself, see ``JointSpace.describe``; ``fingerprint`` changes
    with the weights.
    """

    checkpoint: Path
    start: Start
    space: Mapping[str, Any]
    fingerprint: str

    def settings(self, given: Mapping[str, Any]) -> SpaceSettings:
        """The run's settings where nothing else is given."""
        return SpaceSettings(**{**self.space["settings"], **given})

    def problems_of(self, settings: SpaceSettings, place: str) -> list[Problem]:
        """Sizes of another space than the run's."""
        own = self.settings({})
        return [
            Problem(
                f"{place}, [space], {key}",
                f"is {getattr(settings, key)!r}, but the space it starts from has "
                f"{getattr(own, key)!r}",
                "leave the key out",
            )
            for key in SIZES
            if getattr(settings, key) != getattr(own, key)
        ]


def origin_of(scenario: Scenario) -> Origin | None:
    """The run that a scenario starts from, if it starts from one.

    Raises:
        InputError: If there is no such run, it has finished no stage, or it cannot be read.
    """
    return read_origin(scenario.start, Path(scenario.folder)) if scenario.start else None


def weights_file(scenario: Scenario, tower: TowerSettings) -> Path:
    """The file of a tower's weights; refused if there is none."""
    path = Path(scenario.folder) / Path(tower.weights).expanduser()
    if not path.is_file():
        raise InputError(Problem(f"weights {tower.weights!r}", f"no file {path}"))
    return path


def read_origin(path: str, folder: Path) -> Origin:
    """A run by its folder.

    Args:
        path: The run's folder.
        folder: Where a relative path starts.

    Raises:
        InputError: If there is no such run, it has finished no stage, or it cannot be read.
    """
    run = RunFolder(folder / Path(path).expanduser())
    last = max(run.finished_stages(), default=0)
    if not last:
        raise InputError(Problem(f"start {path!r}", f"no finished stage in {run.path}", REMEDY))
    try:
        return _read(run, last)
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        problem = f"cannot be understood: {type(error).__name__}: {error}"
        remedy = "it was made by another version; train it again"
        raise InputError(Problem(f"start {path!r}", problem, remedy)) from error


def _read(run: RunFolder, last: int) -> Origin:
    checkpoint = run.checkpoint(last)
    notes = read_json(checkpoint / "state.json")
    stages = read_json(run.path / "scores.json")["stages"][:last]
    space = notes["space"]
    SpaceSettings(**space["settings"])
    modalities = tuple(
        Modality(each["name"], Kind(each["kind"]), tuple(each["shape"]))
        for each in space["modalities"]
    )
    trained = {Pair.parse(text) for stage in stages for text in stage["trained"]}
    start = Start(modalities, tuple(sorted(trained)))
    return Origin(checkpoint, start, space, notes["sha256"]["space.safetensors"])
