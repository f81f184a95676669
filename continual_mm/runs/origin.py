"""What a scenario takes from earlier training, found without loading it or importing torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from continual_mm.definitions.arrivals import Start
from continual_mm.definitions.modality import Kind, Modality, Pair
from continual_mm.definitions.scenario import Scenario, SpaceSettings, TowerSettings
from continual_mm.runs.folder import RunFolder
from continual_mm.system.errors import InputError, Problem
from continual_mm.system.files import read_json
from continual_mm.system.reading import user_path

if TYPE_CHECKING:
    from continual_mm.space.statistics import Statistics

SIZES = (
    "kind",
    "mode",
    "dim",
    "clusters",
    "width",
    "depth",
    "reconstruction_width",
    "token_width",
    "blocks",
    "heads",
)
"""What cannot be changed once there are weights."""


@dataclass(frozen=True, slots=True)
class Origin:
    """An earlier run as far as its last finished stage, whose checkpoint it names.

    ``space`` is from ``JointSpace.describe``; ``fingerprint`` changes with the weights.
    """

    checkpoint: Path
    start: Start
    space: Mapping[str, Any]
    fingerprint: str

    @property
    def statistics(self) -> "dict[str, Statistics | None]":
        """By what the run's features were standardised; nothing of a run of an earlier version."""
        from continual_mm.space.statistics import Statistics  # noqa: PLC0415 - it imports numpy

        sizes = {modality.name: modality.features for modality in self.start.modalities}
        return {
            name: by and Statistics.from_json(by, sizes[name])
            for name, by in self.space.get("statistics", {}).items()
        }

    def settings(self, given: Mapping[str, Any]) -> SpaceSettings:
        """The run's settings where nothing else is given."""
        return SpaceSettings(**{**self.space["settings"], **given})

    def problems_of(self, scenario: Scenario, place: str) -> Iterator[Problem]:
        """Sizes of another space than the run's, and towers that the run has already."""
        own = self.settings({})
        for key in SIZES:
            given, expected = getattr(scenario.space, key), getattr(own, key)
            if given != expected:
                message = f"is {given!r}, but the space it starts from has {expected!r}"
                yield Problem(f"{place}, [space], {key}", message, "leave the key out")
        for modality in self.start.modalities:
            said = scenario.towers.get(modality.name)
            if said and (said.kind or said.weights):
                message = "tower and weights come from the run that the scenario starts from"
                remedy = "remove kind and weights"
                yield Problem(f"{place}, [tower.{modality.name}]", message, remedy)


def weights_file(scenario: Scenario, tower: TowerSettings) -> Path:
    """The file of a tower's weights; refused if there is none."""
    path = user_path(tower.weights, scenario.folder)
    if not path.is_file():
        raise InputError.at(f"weights {tower.weights!r}", f"no file {path}")
    return path


def origin_of(scenario: Scenario) -> Origin | None:
    """The run that a scenario starts from; refused unless it has a finished stage."""
    if not scenario.start:
        return None
    place = f"start {scenario.start!r}"
    run = RunFolder(user_path(scenario.start, scenario.folder))
    last = max(run.finished_stages(), default=0)
    if not last:
        remedy = "give the folder of a seed, such as runs/av_vt/naive/seed-0"
        raise InputError.at(place, f"no finished stage in {run.path}", remedy)
    if run.consolidated:
        message = f"{run.path} has consolidated vectors, which cannot learn more"
        raise InputError.at(place, message, "start from the run that they were made of")
    try:
        return _read(run, last)
    except (KeyError, TypeError, ValueError) as error:
        message = f"cannot be understood: {type(error).__name__}: {error}"
        remedy = "it was made by another version; train it again"
        raise InputError.at(place, message, remedy) from error


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
