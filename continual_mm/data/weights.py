"""Weights from a file, without running anything that is in it."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from continual_mm.data.archive import UNREADABLE as UNREADABLE_ARCHIVES
from continual_mm.system.errors import InputError
from continual_mm.system.reading import reads

WRAPPINGS = ("state_dict", "model_state_dict", "model")
"""Keys under which training programs keep a state dict beside other things."""

UNREADABLE = (
    *(*UNREADABLE_ARCHIVES, SafetensorError, pickle.UnpicklingError),
    *(AttributeError, AssertionError),
)
"""Errors that torch and safetensors raise on files that hold anything else."""


@reads
def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a safetensors file, or else in one that ``torch.save`` wrote, on the CPU.

    A file that holds more than tensors and plain containers, or NaN, is an InputError.
    """
    try:
        loaded = load_file(path) if path.suffix == ".safetensors" else _torch_file(path)
    except UNREADABLE as error:
        remedy = "give a .safetensors file, or one that torch.save wrote of a state dict"
        raise InputError.at(path, f"cannot be read as weights: {_reason(error)}", remedy) from error
    if not isinstance(loaded, Mapping) or not all(
        isinstance(value, Tensor) for value in loaded.values()
    ):
        raise InputError.at(path, "holds no state dict", "save model.state_dict() alone")
    # Infinite values are allowed: attention masks are kept beside weights.
    if broken := [repr(str(name)) for name, value in loaded.items() if value.isnan().any()]:
        problem = f"holds NaN in {', '.join(broken[:3])}"
        raise InputError.at(path, problem, "save the weights of a sound model")
    return {str(name): value for name, value in loaded.items()}


def _reason(error: Exception) -> str:
    """The first line of the error; never torch's advice to load the file with ``weights_only``."""
    lines = str(error).splitlines()
    if isinstance(error, SafetensorError | OSError | RuntimeError) and lines:
        return lines[0]
    return "it holds more than tensors, or is no file that torch.save wrote"


def _torch_file(path: Path) -> Any:
    with catch_warnings():
        # About pickles that torch.save did not write, which are read or refused all the same.
        simplefilter("ignore", UserWarning)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(loaded, Mapping):
        for key in WRAPPINGS:
            if isinstance(loaded.get(key), Mapping):
                return loaded[key]
    return loaded
