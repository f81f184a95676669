"""What a scenario says of its towers -> towers, their weights read from files."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from pkgutil import resolve_name

from safetensors.torch import save_file
from torch import Tensor, nn

from continual_mm.data.weights import read_weights
from continual_mm.definitions.modality import Kind, Modality, Pair
from continual_mm.definitions.scenario import Scenario, TowerSettings
from continual_mm.runs import checkpoint
from continual_mm.runs.checkpoint import remembered
from continual_mm.runs.origin import Origin, weights_file
from continual_mm.runs.specification import OpenedScenario
from continual_mm.space.kinds import new_space
from continual_mm.space.mcn_weights import TOWERS, load_published, published_state, published_tower
from continual_mm.space.naming import module_key
from continual_mm.space.space import JointSpace, registered
from continual_mm.space.towers import Tower
from continual_mm.system.arguments import checked_arguments
from continual_mm.system.errors import InputError, Problem, suggestion
from continual_mm.system.files import atomic_write
from continual_mm.system.imports import optional_import

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

    ``modules`` are modules from Python by modality; each stays as it is, a copy is trained. Given
    for a modality that never arrives, or that has a tower by name, it is refused.
    """
    arriving = {modality.name: modality for modality in modalities}
    problems = [
        Problem(
            f"towers[{name!r}]",
            "no stage adds such a modality",
            f"{suggestion(name, arriving)}there are {', '.join(sorted(arriving))}",
        )
        for name in modules
        if name not in arriving
    ]
    problems += [
        Problem(f"towers[{name!r}]", "the scenario names a tower as well", "give one of the two")
        for name in modules
        if (said := scenario.towers.get(name)) and (said.kind or said.weights)
    ]
    if problems:
        raise InputError(problems)
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


OWN = "own/"
"""Where the names of pairs' adapters begin in what a plugin remembers."""
MERGE = "continual_mm.plugins.adapters:merge"
"""Imported only where it is needed, since peft is not always installed."""


def plugins_with_adapters(folder: Path) -> tuple[str, ...]:
    """Names of the plugins of a checkpoint that gave pairs adapters of their own."""
    known = (key.partition("/") for key in remembered(folder))
    return tuple(sorted({plugin for plugin, _, key in known if key.startswith(OWN)}))


def add_adapters(space: JointSpace, folder: Path, name: str) -> None:
    """Add a pair's adapters in a checkpoint to its space; a pair without any sees it as it is."""
    pair = _pair(space, name)
    state = remembered(folder)
    for plugin, modality in product(plugins_with_adapters(folder), (pair.first, pair.second)):
        start = f"{plugin}/{OWN}{pair}/{modality}/"
        adapters = {
            key.removeprefix(start): value for key, value in state.items() if key.startswith(start)
        }
        if adapters:
            with optional_import(f"pair {name!r}"):
                merge = resolve_name(MERGE)
            merge(space.tower(modality), adapters, scale=float(state[f"{plugin}/scale"]))


def _pair(space: JointSpace, name: str) -> Pair:
    names = ", ".join(modality.name for modality in space.modalities)
    try:
        pair = Pair.parse(name)
    except ValueError as error:
        raise InputError.at("pair", str(error), f"the space has {names}") from error
    for modality in (pair.first, pair.second):
        if modality not in space:
            problem = f"no modality {modality!r} in this space"
            raise InputError.at(f"pair {name!r}", problem, f"it has {names}")
    return pair


@checked_arguments
def load_released(
    space: JointSpace, path: str | Path, towers: Mapping[str, str] = TOWERS
) -> JointSpace:
    """Fill the towers of a space in reference mode with the weights in a file.

    Args:
        space: With the modalities in it.
        path: A safetensors file, or a torch file with nothing but tensors in it.
        towers: Published tower (``video``, ``audio``, ``text``) -> modality that it becomes; those
            left out are passed over.

    Returns:
        The space.

    Raises:
        InputError: If the file cannot be read, a name is missing or unknown, or a shape is
            another one. The space is as it was then.
        KeyError: If a modality has not arrived.
    """
    load_published(space, read_weights(Path(path)), towers, source=str(path))
    return space


@checked_arguments
def save_released(space: JointSpace, path: str | Path, towers: Mapping[str, str] = TOWERS) -> None:
    """Write the towers of a space in reference mode as safetensors, under the published names."""
    tensors = published_state(space, towers)
    with atomic_write(Path(path)) as temporary:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary)


def first_space(
    opened: OpenedScenario, modules: Mapping[str, nn.Module], *, seed: int
) -> JointSpace:
    """The space before the first stage; towers may begin with modules from Python."""
    scenario, origin = opened.scenario, opened.origin
    if origin is None:
        towers = towers_of(scenario, opened.arrivals[-1].available, modules)
        return new_space(scenario.space, seed=seed, towers=towers)
    if problems := list(origin.problems_of(scenario, f"scenario '{scenario.name}'")):
        raise InputError(problems)
    begun = origin.start.modalities
    towers = towers_of(scenario, (*begun, *opened.arrivals[-1].available), modules)
    known = _known_towers(origin, towers, scenario, modules)
    checkpoint.verified(origin.checkpoint)
    space = new_space(scenario.space, seed=seed, towers=towers | known)
    space.restore(origin.space)
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
        described = origin.space["towers"].get(name, {"kind": "", "trained": True})
        given = towers[name] if name in modules else None
        trained = described["trained"] if said is None else said.trained
        known[name] = replace(given or registered(described["kind"]), trained=trained)
    return {name: tower for name, tower in known.items() if tower.kind or not tower.trained}
