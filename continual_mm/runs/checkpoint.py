"""A run's state on disk: tensors as safetensors, the rest as JSON, nothing that runs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from continual_mm.learning.learner import Learner
from continual_mm.runs import records
from continual_mm.space.kinds import rebuilt
from continual_mm.space.space import NO_TOWERS, JointSpace
from continual_mm.space.towers import Tower
from continual_mm.system.errors import InputError, first_line
from continual_mm.system.files import atomic_folder, checksum, write_json, writing

FORMAT = 2
SPACE, STATE, NOTES = "space.safetensors", "state.safetensors", "state.json"
CLOCK = (
    "train_iterations",
    "train_exp_counter",
    "train_exp_epochs",
    "train_exp_iterations",
    "train_epoch_iterations",
    "total_iterations",
)


class Keeper(Protocol):
    """Whatever remembers something from one step to the next, as a plugin does."""

    on_device: bool

    def state(self) -> dict[str, Tensor]:
        """Everything that is remembered."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`state`."""


def save(
    folder: Path,
    learner: Learner,
    keepers: Mapping[str, Keeper],
    notes: Mapping[str, Any],
    definition: Mapping[str, Any],
) -> None:
    """Write the learner after a stage or a step; the folder appears whole, or not at all.

    ``keepers`` remember something, ``notes`` are JSON values to give back, ``definition`` is what
    is run. What cannot be read back is refused: the disk is at fault.
    """
    with atomic_folder(folder) as temporary:
        _save(temporary / SPACE, learner.space.state_dict())
        _save(temporary / STATE, _state(learner, keepers))
        contents = {
            "format": FORMAT,
            "stage": learner.stage + 1,
            "space": learner.space.describe(),
            "clock": {counter: getattr(learner.clock, counter) for counter in CLOCK},
            "scaler": learner.scaler.state_dict(),
            "pace": learner.lr_scale,
            "notes": dict(notes),
            "definition": dict(definition),
            "sha256": {name: checksum(temporary / name) for name in (SPACE, STATE)},
        }
        write_json(temporary / NOTES, contents, sealed=True)
    verified(folder)


def save_space(folder: Path, space: JointSpace, *, stage: int) -> None:
    """Write a space for use alone: no training goes on from it. ``stage`` is 1-based."""
    with atomic_folder(folder) as temporary:
        _save(temporary / SPACE, space.state_dict())
        contents = {
            "format": FORMAT,
            "stage": stage,
            "space": space.describe(),
            "sha256": {SPACE: checksum(temporary / SPACE)},
        }
        write_json(temporary / NOTES, contents, sealed=True)
    verified(folder)


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    plain = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    with writing(path):
        save_file(plain, path)


def _state(learner: Learner, keepers: Mapping[str, Keeper]) -> dict[str, Tensor]:
    names: dict[Tensor, str] = {value: name for name, value in learner.parameters().items()}
    tensors = {f"clusters/{key}": value for key, value in learner.clusters.state().items()}
    for parameter, slots in learner.optimizer.state.items():
        for slot, value in slots.items():
            tensors[f"optimizer/{names[parameter]}/{slot}"] = value
    for name, keeper in keepers.items():
        tensors |= {f"plugins/{name}/{key}": value for key, value in keeper.state().items()}
    return tensors


def add_modalities(folder: Path, learner: Learner) -> None:
    """Add the modalities of a saved space to that of a new learner."""
    with understood(folder):
        learner.space.restore(verified(folder).space.model_dump())


def restore(folder: Path, learner: Learner, keepers: Mapping[str, Keeper]) -> records.Notes:
    """Restore a learner whose space has the same modalities; returns the notes."""
    known = verified(folder)
    if known.notes is None:
        message = "is of a space alone"
        raise InputError.at(folder, message, "go on from a run, not from what was made of it")
    with understood(folder):
        fill(learner.space, folder)
        state = _tensors(folder / STATE)
        _restore_optimizer(learner, _under("optimizer", state))
        learner.clusters.load_state(_to(learner.device, _under("clusters", state)))
        for name, keeper in keepers.items():
            kept = _under(f"plugins/{name}", state)
            keeper.load_state(_to(learner.device, kept) if keeper.on_device else kept)
        for counter in CLOCK:
            setattr(learner.clock, counter, known.clock[counter])
        learner.scaler.load_state_dict(known.scaler)
        learner.lr_scale = dict(known.pace)  # earlier checkpoints know of none
    return known.notes


def _restore_optimizer(learner: Learner, state: Mapping[str, Tensor]) -> None:
    """Give parameters their moments back, those too that are frozen at present."""
    parameters = learner.parameters()
    fused = bool(learner.optimizer.defaults.get("fused"))
    learner.optimizer.state.clear()
    for key, value in state.items():
        name, _, slot = key.rpartition("/")
        counts = slot == "step" and not fused  # torch counts steps on the CPU unless fused
        moved = value if counts else value.to(learner.device)
        learner.optimizer.state[parameters[name]][slot] = moved


def load_space(folder: Path, towers: Mapping[str, Tower] = NO_TOWERS) -> JointSpace:
    """The space of a checkpoint, ready for use, on the CPU.

    ``towers`` are those that were objects from Python; one that has no registered name is needed.
    """
    known = verified(folder)
    with understood(folder):
        space = rebuilt(known.space.model_dump(), towers)
        fill(space, folder)
    return space.eval()


def remembered(folder: Path) -> dict[str, Tensor]:
    """What plugins remember in a checkpoint: ``plugin/key`` by name; nothing in a space alone."""
    state = _tensors(folder / STATE) if (folder / STATE).exists() else {}
    return _under("plugins", state)


def fill(space: JointSpace, folder: Path) -> None:
    """Give a space of the same shape the weights of a checkpoint."""
    try:
        space.load_state_dict(_tensors(folder / SPACE))
    except RuntimeError as error:
        remedy = "it was made by another version; train again"
        raise InputError.at(folder / SPACE, str(error), remedy) from error


_REMEDY = (
    "remove this checkpoint's folder, and the run's cost.json if there is one, and give the run's "
    "command again: it goes on from the checkpoint before"
)


def verified(folder: Path) -> records.Checkpoint:
    """What a checkpoint says of itself; damaged files and another format are refused."""
    known = records.read(records.Checkpoint, folder / NOTES, _REMEDY)
    if known.format != FORMAT:
        problem = f"format {known.format!r} is not {FORMAT}"
        raise InputError.at(folder, problem, "train again with this version")
    for name in (SPACE, STATE) if known.notes else (SPACE,):
        path = folder / name
        if not path.is_file() or checksum(path) != known.sha256.get(name):
            raise InputError.at(path, "is missing or damaged", _REMEDY)
    return known


@contextmanager
def understood(folder: Path) -> Iterator[None]:
    """Refuse what is whole, but does not say what is expected."""
    try:
        yield
    except InputError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        message = f"cannot be understood: {type(error).__name__}: {first_line(error)}"
        remedy = "it was made by another version: train again"
        raise InputError.at(folder, message, remedy) from error


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError.at(path, f"is no safetensors file: {error}") from error


def _under(start: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{start}/"
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def _to(device: torch.device, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.to(device) if value.dim() else value for key, value in tensors.items()}
