"""The space of a checkpoint as one pair sees it, with the pair's adapters in the weights."""

from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from continual_mm.complaint import Complaint, RefusedError
from continual_mm.modality import Pair
from continual_mm.runs.checkpoint import remembered
from continual_mm.space.space import JointSpace

PLUGIN = "pair_lora"
MERGE = "continual_mm.plugins.adapters:merge"
"""Imported only where it is needed, since peft is not always installed."""


def adapt(space: JointSpace, folder: Path, name: str) -> None:
    """Add a pair's adapters to a space's weights; a pair without any sees the space as it is.

    Args:
        space: The checkpoint's.
        folder: The checkpoint's folder.
        name: The pair, such as ``"video-text"``.

    Raises:
        RefusedError: If the pair is none of the space's, or peft is not installed.
    """
    pair = _pair(space, name)
    state = remembered(folder)
    for modality in (pair.first, pair.second):
        start = f"{PLUGIN}/own/{pair}/{modality}/"
        adapters = {
            key.removeprefix(start): value for key, value in state.items() if key.startswith(start)
        }
        if adapters:
            merge = _merge(name)
            merge(space.tower(modality), adapters, scale=float(state[f"{PLUGIN}/scale"]))


def _merge(name: str) -> Any:
    try:
        return resolve_name(MERGE)
    except ModuleNotFoundError as error:
        if error.name != "peft":
            raise
        remedy = "pip install 'continual-mm[lora]'"
        raise RefusedError(Complaint(f"pair {name!r}", "peft is not installed", remedy)) from error


def _pair(space: JointSpace, name: str) -> Pair:
    names = ", ".join(modality.name for modality in space.modalities)
    try:
        pair = Pair.parse(name)
    except ValueError as error:
        raise RefusedError(Complaint("pair", str(error), f"the space has {names}")) from error
    for modality in (pair.first, pair.second):
        if modality not in space:
            problem = f"no modality {modality!r} in this space"
            raise RefusedError(Complaint(f"pair {name!r}", problem, f"it has {names}"))
    return pair
