"""The space that a run begins with: empty, or that of an earlier run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn

from continual_mm.arrivals import Arrival
from continual_mm.complaint import Complaint, RefusedError
from continual_mm.definitions import Scenario
from continual_mm.modality import Kind, Modality
from continual_mm.runs import checkpoint
from continual_mm.runs.origin import Origin
from continual_mm.runs.towers import towers_of
from continual_mm.space.space import JointSpace, registered
from continual_mm.space.towers import Tower


def first_space(
    scenario: Scenario,
    arrivals: Sequence[Arrival],
    origin: Origin | None,
    modules: Mapping[str, nn.Module],
    *,
    seed: int,
) -> JointSpace:
    """The space before the first stage.

    Args:
        scenario: Sizes, and towers that are not the usual ones.
        arrivals: The scenario on its dataset.
        origin: The run that it starts from.
        modules: Modality -> a module from Python to begin its tower with.
        seed: Where first weights come from.

    Raises:
        RefusedError: If a tower cannot be had, or the space is not of the origin's sizes.
    """
    begun = origin.start.modalities if origin else ()
    towers = towers_of(scenario, (*begun, *arrivals[-1].available), modules)
    if origin is None:
        return JointSpace(scenario.space, seed=seed, towers=towers)
    misfits = origin.misfits(scenario.space, f"scenario '{scenario.name}'")
    known = _known_towers(origin, towers, scenario, modules)
    if misfits:
        raise RefusedError(misfits)
    checkpoint.verified(origin.checkpoint)
    space = JointSpace(scenario.space, seed=seed, towers=towers | known)
    for each in origin.space["modalities"]:
        space.welcome(Modality(each["name"], Kind(each["kind"]), tuple(each["shape"])))
    checkpoint.fill(space, origin.checkpoint)
    return space


def _known_towers(
    origin: Origin,
    towers: Mapping[str, Tower],
    scenario: Scenario,
    modules: Mapping[str, nn.Module],
) -> dict[str, Tower]:
    """The origin's towers as it describes them, and trained or not as the scenario says."""
    known = {}
    for modality in origin.start.modalities:
        name, said = modality.name, scenario.towers.get(modality.name)
        if said is not None and (said.kind or said.weights):
            place = f"scenario '{scenario.name}', [tower.{name}]"
            problem = "the tower and its weights come from the run that the scenario starts from"
            raise RefusedError(Complaint(place, problem, "remove kind and weights"))
        described = origin.space["towers"].get(name, {"kind": "", "trained": True})
        given = towers[name] if name in modules else None
        trained = described["trained"] if said is None else said.trained
        known[name] = replace(given or registered(described["kind"]), trained=trained)
    return {name: tower for name, tower in known.items() if tower.kind or not tower.trained}
