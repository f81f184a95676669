"""What a scenario says of its towers -> towers, their weights read from files."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from torch import Tensor, nn

from continual_mm.complaint import Complaint, RefusedError, suggestion
from continual_mm.data.weights import read_weights
from continual_mm.definitions import Scenario, TowerSettings
from continual_mm.modality import Kind, Modality
from continual_mm.runs.origin import weights_file
from continual_mm.space.naming import module_key
from continual_mm.space.published import TOWERS, published_tower
from continual_mm.space.space import registered
from continual_mm.space.towers import Tower

PUBLISHED = {
    Kind.VECTOR: "video",
    Kind.FRAMES: "video",
    Kind.SPECTROGRAM: "audio",
    Kind.TOKENS: "text",
}
"""The published tower that reads a kind of signal."""


def towers_of(
    scenario: Scenario, modalities: Iterable[Modality], modules: Mapping[str, nn.Module]
) -> dict[str, Tower]:
    """The towers that are not the usual ones.

    Args:
        scenario: Names towers and files of weights.
        modalities: Everything that arrives.
        modules: Modality -> a module from Python; it stays as it is, a copy is trained.

    Raises:
        RefusedError: If a tower is not registered, weights cannot be read, or a module is given
            for a modality that never arrives or has a tower by name.
    """
    arriving = {modality.name: modality for modality in modalities}
    complaints = [
        Complaint(
            f"towers[{name!r}]",
            "no stage adds such a modality",
            f"{suggestion(name, arriving)}there are {', '.join(sorted(arriving))}",
        )
        for name in modules
        if name not in arriving
    ]
    complaints += [
        Complaint(f"towers[{name!r}]", "the scenario names a tower as well", "give one of the two")
        for name in modules
        if (said := scenario.towers.get(name)) and (said.kind or said.weights)
    ]
    if complaints:
        raise RefusedError(complaints)
    trained = {name: said.trained for name, said in scenario.towers.items()}
    named = {
        name: _named(scenario, arriving[name], said)
        for name, said in scenario.towers.items()
        if name not in modules
    }
    own = {name: Tower.of(m, trained=trained.get(name, True)) for name, m in modules.items()}
    return named | own


def _named(scenario: Scenario, modality: Modality, said: TowerSettings) -> Tower:
    tower = registered(said.kind, trained=said.trained)
    if not said.weights:
        return tower
    path = weights_file(scenario, said)
    weights = _of_one_tower(read_weights(path), modality, published=scenario.space.reference)
    return replace(tower, weights=weights, source=str(path))


def _of_one_tower(
    weights: Mapping[str, Tensor], modality: Modality, *, published: bool
) -> Mapping[str, Tensor]:
    """One tower's tensors in a file that may hold a whole space, ours or the published one."""
    key = module_key(modality.name)
    starts = {f"encoders.{key}.": "encoder.", f"reconstructions.{key}.": "reconstruction."}
    ours = {
        new + name.removeprefix(old): value
        for name, value in weights.items()
        for old, new in starts.items()
        if name.startswith(old)
    }
    if ours or not published:
        return ours or weights
    tower = modality.name if modality.name in TOWERS else PUBLISHED[modality.kind]
    return published_tower(weights, tower) or weights
