"""MCN's released weights: their names, and the tensors of our towers that they stand for."""

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from continual_mm.space.naming import module_key
from continual_mm.space.space import JointSpace
from continual_mm.system.errors import InputError, Problem, first_few

State = Mapping[str, Tensor]  # name -> tensor

PREFIXES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "video": {
            "GU_video.fc.": "encoder.unit.fc.",
            "GU_video.cg.fc.": "encoder.unit.gate.",
            "recon_v.": "reconstruction.",
        },
        "audio": {
            "DAVEnet.": "encoder.net.",
            "DAVEnet_projection.": "encoder.projection.",
            "GU_audio.fc.": "encoder.unit.fc.",
            "GU_audio.cg.fc.": "encoder.unit.gate.",
            "recon_a.": "reconstruction.",
        },
        "text": {
            "text_pooling_caption.fc.": "encoder.words.",
            "GU_text_captions.fc.": "encoder.unit.fc.",
            "GU_text_captions.cg.fc.": "encoder.unit.gate.",
            "recon_t.": "reconstruction.",
        },
    }
)
"""Tower -> beginning of its published names -> beginning of ours, within the tower."""

TOWERS: Mapping[str, str] = MappingProxyType({tower: tower for tower in PREFIXES})
"""Published tower -> modality, where the modalities are called as the towers."""


def published_tower(published: State, tower: str) -> dict[str, Tensor]:
    """The tensors of one published tower, as our towers of reference mode take them.

    The ``module.`` that data parallelism puts before each name is ignored. Our names begin with
    ``encoder.`` or ``reconstruction.``; DAVEnet's convolutions lack the axis of length one.
    """
    return {
        ours: value.squeeze(_short_axis(ours)) if value.dim() == 4 else value
        for name, value in _bare(published).items()
        if (ours := _translated(name, PREFIXES[tower]))
    }


def published_state(space: JointSpace, towers: Mapping[str, str] = TOWERS) -> dict[str, Tensor]:
    """A space's towers, published tower -> modality, under the published names.

    An InputError if the space is not in reference mode, a KeyError if it lacks a modality.
    """
    if not space.settings.reference:
        remedy = 'give its [space] table mode = "reference"'
        raise InputError.at("the space", "its towers are not the published ones", remedy)
    found = {}
    for tower, modality in towers.items():
        prefixes = {ours: name for name, ours in PREFIXES[tower].items()}
        for ours, value in _modules(space, modality).state_dict().items():
            name = _translated(ours, prefixes)
            if name is None:
                problem = f"a modality of this kind has no {tower} tower"
                remedy = "video is a vector or frames, audio a spectrogram, text tokens"
                raise InputError.at(f"modality {modality!r}", problem, remedy)
            found[name] = value.unsqueeze(_short_axis(ours)) if value.dim() == 3 else value
    return found


@torch.no_grad()
def load_published(
    space: JointSpace, published: State, towers: Mapping[str, str] = TOWERS, *, source: str
) -> None:
    """Fill a space's towers with released weights, all or, where anything does not fit, none.

    Towers left out of ``towers``, published tower -> modality, are ignored. ``source`` is what to
    call the weights in problems. For the space see :func:`published_state`.
    """
    given, needed = _bare(published), published_state(space, towers)
    ignored = tuple(
        prefix for tower in PREFIXES if tower not in towers for prefix in PREFIXES[tower]
    )
    missing = [name for name in needed if name not in given]
    unknown = [name for name in given if name not in needed and not name.startswith(ignored)]
    misshapen = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(value.shape)}"
        for name, value in needed.items()
        if name in given and given[name].shape != value.shape
    ]
    kinds = (
        (missing, "missing", "give the weights of MCN with its reconstruction heads"),
        (unknown, "unknown", "give the weights of MCN's three towers and nothing else"),
        (misshapen, "of another shape", "set dim, reconstruction_width, width and depth to fit"),
    )
    problems = [Problem(source, f"{word}: {first_few(n)}", fix) for n, word, fix in kinds if n]
    if problems:
        raise InputError(problems)
    for tower, modality in towers.items():
        _modules(space, modality).load_state_dict(published_tower(given, tower))


def _modules(space: JointSpace, modality: str) -> nn.ModuleDict:
    """A tower and its head under the names that stand on the right of ``PREFIXES``."""
    tower = space.tower(modality)
    head = space.reconstructions[module_key(modality)]
    return nn.ModuleDict({"encoder": tower, "reconstruction": head})


def _bare(published: State) -> dict[str, Tensor]:
    return {name.removeprefix("module."): value for name, value in published.items()}


def _translated(name: str, prefixes: Mapping[str, str]) -> str | None:
    """The name with its beginning replaced; None if no beginning fits."""
    for old, new in prefixes.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return None


def _short_axis(ours: str) -> int:
    """The first kernel lies across the mels, (out, 1, mels, 1); the others (out, in, 1, kernel)."""
    return 1 if ours == "encoder.net.conv1.weight" else 2
