"""Released weights from a file into a space, and back into a file."""

import pytest
import torch

from continual_mm.definitions.modality import Kind, Modality
from continual_mm.definitions.scenario import SpaceSettings
from continual_mm.runs.start import load_released, save_released
from continual_mm.space.mcn_weights import published_state
from continual_mm.space.space import JointSpace
from continual_mm.system.errors import InputError


def space_with(seed):
    sizes = {"dim": 8, "reconstruction_width": 7, "width": 2, "depth": 1}
    space = JointSpace(SpaceSettings(mode="reference", **sizes), seed=seed)
    space.add_modality(Modality("video", Kind.VECTOR, (5,)))
    space.add_modality(Modality("sound", Kind.SPECTROGRAM, (12, 3)))
    return space


TOWERS = {"video": "video", "audio": "sound"}


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_a_file_gives_the_space_that_it_was_written_from(tmp_path, ending):
    source, path = space_with(1), tmp_path / f"mcn.{ending}"
    if ending == "safetensors":
        save_released(source, path, TOWERS)
    else:
        torch.save(published_state(source, TOWERS), path)
    target = load_released(space_with(2), path, TOWERS)
    sounds = torch.randn(3, 12, 3)
    assert torch.equal(target.encode("sound", sounds), source.encode("sound", sounds))


def test_a_refusal_names_the_file(tmp_path):
    path = tmp_path / "mcn.safetensors"
    save_released(space_with(1), path, {"video": "video"})
    with pytest.raises(InputError, match=r"mcn\.safetensors: missing: DAVEnet"):
        load_released(space_with(2), path, TOWERS)
