"""What is wrong with the towers that a scenario names, found without building them."""

from collections.abc import Iterable
from dataclasses import replace

from continual_mm.arrivals import Start
from continual_mm.complaint import Complaint, RefusedError, suggestion
from continual_mm.definitions import Scenario, TowerSettings
from continual_mm.modality import Modality
from continual_mm.runs.origin import weights_file
from continual_mm.space import registry


def tower_misfits(
    scenario: Scenario, modalities: Iterable[Modality], start: Start | None, file: str
) -> list[Complaint]:
    """One complaint per tower that cannot be had, or that does not read its modality.

    Args:
        scenario: The definition.
        modalities: Everything that arrives.
        start: What the scenario starts from.
        file: What to call the definition.
    """
    arriving = {modality.name: modality for modality in modalities}
    begun = {modality.name for modality in start.modalities} if start else set()
    complaints: list[Complaint] = []
    for name, said in scenario.towers.items():
        place = f"{file}, [tower.{name}]"
        if name in begun and (said.kind or said.weights):
            problem = "tower and weights come from the run that the scenario starts from"
            complaints.append(Complaint(place, problem, "remove kind and weights"))
        else:
            complaints += _about_kind(scenario, arriving[name], said.kind, place)
            complaints += _about_weights(scenario, said, place)
    return complaints


def _about_kind(
    scenario: Scenario, modality: Modality, kind: str, place: str
) -> Iterable[Complaint]:
    known = [*registry.BUILT_IN]
    if kind and kind not in known and kind not in registry.outside():
        remedy = f"{suggestion(kind, known)}there are {', '.join(known)}"
        yield Complaint(f"{place}, kind", f"there is no tower {kind!r}", remedy)
    elif problem := registry.misfit(kind, modality, scenario.space.dim):
        fit = [each for each in known if not registry.misfit(each, modality, scenario.space.dim)]
        yield Complaint(f"{place}, kind", f"{kind!r} {problem}", f"these fit: {', '.join(fit)}")
    elif kind == "identity" and _standardised(scenario, modality.name):
        problem = "'identity' takes features as they are, but they are standardised"
        remedy = "set standardise to the names of the other modalities, or to false"
        yield Complaint(place, problem, remedy)


def _standardised(scenario: Scenario, name: str) -> bool:
    said = scenario.standardise
    return said if isinstance(said, bool) else name in said


def _about_weights(scenario: Scenario, said: TowerSettings, place: str) -> Iterable[Complaint]:
    if not said.weights:
        return
    try:
        weights_file(scenario, said)
    except RefusedError as error:
        yield from (replace(fault, place=f"{place}, {fault.place}") for fault in error.complaints)
