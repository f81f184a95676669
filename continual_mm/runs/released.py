"""Released weights of MCN: from a file into a space, and from a space into a file."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from continual_mm.data.weights import read_weights
from continual_mm.runs.files import written
from continual_mm.space import published
from continual_mm.space.published import TOWERS
from continual_mm.space.space import JointSpace


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
        RefusedError: If the file cannot be read, a name is missing or unknown, or a shape is
            another one. The space is as it was then.
        KeyError: If a modality has not arrived.
    """
    published.load_published(space, read_weights(Path(path)), towers, source=str(path))
    return space


def released_tower(path: str | Path, tower: str) -> dict[str, Tensor]:
    """One tower's tensors in a file of released weights.

    Returns:
        Names that begin with ``encoder.`` or ``reconstruction.`` -> tensors, as the towers of
        reference mode take them.

    Raises:
        RefusedError: If the file cannot be read.
    """
    return published.published_tower(read_weights(Path(path)), tower)


def save_released(space: JointSpace, path: str | Path, towers: Mapping[str, str] = TOWERS) -> None:
    """Write the towers of a space in reference mode as safetensors, under the published names."""
    tensors = published.published_state(space, towers)
    with written(Path(path)) as temporary:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary)
