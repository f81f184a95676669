"""A finished stage on disk: tensors as safetensors, the rest as JSON, nothing that runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.learning.learner import Learner, adam
from continual_mm.modality import Kind, Modality
from continual_mm.runs.files import checksum, read_json, write_json, written_folder
from continual_mm.space.naming import named_parameters
from continual_mm.space.space import JointSpace

FORMAT = 1
SPACE, STATE, NOTES = "space.safetensors", "state.safetensors", "state.json"


class Remembering(Protocol):
    """What can be put away and taken up again."""

    def state(self) -> dict[str, Tensor]:
        """Everything that it remembers."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`state`."""


def save(
    folder: Path, learner: Learner, plugins: Mapping[str, Remembering], notes: Mapping[str, Any]
) -> None:
    """Write the learner after a stage; the folder appears whole or not at all.

    Args:
        folder: The checkpoint's folder.
        learner: Between two stages.
        plugins: What remembers something, by name.
        notes: JSON values to give back.
    """
    with written_folder(folder) as temporary:
        _save(temporary / SPACE, learner.space.state_dict())
        _save(temporary / STATE, _state(learner, plugins))
        contents = {
            "format": FORMAT,
            "stage": learner.stage + 1,
            "space": learner.space.describe(),
            "clock": {
                "train_iterations": learner.clock.train_iterations,
                "train_exp_counter": learner.clock.train_exp_counter,
                "total_iterations": learner.clock.total_iterations,
            },
            "notes": dict(notes),
            "sha256": {name: checksum(temporary / name) for name in (SPACE, STATE)},
        }
        write_json(temporary / NOTES, contents)


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file(
        {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}, path
    )


def _state(learner: Learner, plugins: Mapping[str, Remembering]) -> dict[str, Tensor]:
    names: dict[Tensor, str] = {
        parameter: name for name, parameter in named_parameters(learner.space)
    }
    tensors = {f"clusters/{key}": value for key, value in learner.clusters.state().items()}
    for parameter, slots in learner.optimizer.state.items():
        for slot, value in slots.items():
            tensors[f"optimizer/{names[parameter]}/{slot}"] = value
    for name, plugin in plugins.items():
        tensors |= {f"plugins/{name}/{key}": value for key, value in plugin.state().items()}
    return tensors


def restore(folder: Path, learner: Learner, plugins: Mapping[str, Remembering]) -> dict[str, Any]:
    """Put a new learner where the saved one was.

    Returns:
        The notes given to :func:`save`.

    Raises:
        RefusedError: If a file is missing, damaged, or of another format or strategy.
    """
    contents = _verified(folder)
    for modality in contents["space"]["modalities"]:
        kind, shape = Kind(modality["kind"]), tuple(modality["shape"])
        learner.space.welcome(Modality(modality["name"], kind, shape))
    _fill(learner.space, folder)
    state = _tensors(folder / STATE)
    parameters = dict(named_parameters(learner.space))
    slots: dict[str, dict[str, Tensor]] = {}
    for key, value in _under("optimizer", state).items():
        name, _, slot = key.rpartition("/")
        slots.setdefault(name, {})[slot] = value
    learner.optimizer = adam([parameters[name] for name in parameters if name in slots], 0.0)
    for name, values in slots.items():
        learner.optimizer.state[parameters[name]] = {
            slot: value if slot == "step" else value.to(learner.device)
            for slot, value in values.items()
        }
    learner.clusters.load_state(_to(learner.device, _under("clusters", state)))
    for name, plugin in plugins.items():
        plugin.load_state(_under(f"plugins/{name}", state))
    for counter, count in contents["clock"].items():
        setattr(learner.clock, counter, count)
    notes: dict[str, Any] = contents["notes"]
    return notes


def load_space(folder: Path) -> JointSpace:
    """The space of a checkpoint, ready for use, on the CPU.

    Raises:
        RefusedError: If a file is missing, damaged or of another format.
    """
    space = JointSpace.rebuild(_verified(folder)["space"])
    _fill(space, folder)
    return space.eval()


def _fill(space: JointSpace, folder: Path) -> None:
    try:
        space.load_state_dict(_tensors(folder / SPACE))
    except RuntimeError as error:
        remedy = "it was made by another version; train again"
        raise RefusedError(Complaint(str(folder / SPACE), str(error), remedy)) from error


def _verified(folder: Path) -> dict[str, Any]:
    contents: dict[str, Any] = read_json(folder / NOTES)
    if contents.get("format") != FORMAT:
        problem = f"format {contents.get('format')!r} is not {FORMAT}"
        raise RefusedError(Complaint(str(folder), problem, "train again with this version"))
    for name, expected in contents["sha256"].items():
        path = folder / Path(name).name
        if not path.is_file() or checksum(path) != expected:
            remedy = "remove this checkpoint's folder to go on from the one before"
            raise RefusedError(Complaint(str(path), "is missing or damaged", remedy))
    return contents


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise RefusedError(Complaint(str(path), f"is no safetensors file: {error}")) from error


def _under(start: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{start}/"
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def _to(device: torch.device, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.to(device) if value.dim() else value for key, value in tensors.items()}
