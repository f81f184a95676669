"""Layers of other widths than those they are built with."""

import pytest
import torch

from continual_mm.definitions.modality import Kind, Modality
from continual_mm.definitions.scenario import SpaceSettings
from continual_mm.runs import checkpoint
from continual_mm.space.space import JointSpace
from continual_mm.system.errors import InputError
from continual_mm.system.files import read_json, write_json


@pytest.fixture
def space():
    made = JointSpace(SpaceSettings(dim=6, clusters=2))
    made.add_modality(Modality("text", Kind.TOKENS, (4, 3)))
    return made


WORDS, GATE = "encoders.text.words.weight", "encoders.text.unit.fc.weight"


def test_what_changes_is_zero_and_layers_say_their_widths(space):
    before = {name: value.clone() for name, value in space.state_dict().items()}
    space.resize({WORDS: (5, 3), GATE: (6, 5), "encoders.text.norm.weight": (6,)})
    encoder = space.tower("text")
    assert (encoder.words.out_features, encoder.unit.fc.in_features, encoder.pooled) == (5, 5, 5)
    assert not encoder.words.weight.any()
    assert encoder.words.weight.requires_grad
    for name, value in space.state_dict().items():
        if name not in (WORDS, GATE):
            assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    ("shapes", "problem"),
    [
        ({WORDS: (5,)}, "cannot be of shape"),
        ({WORDS: (0, 3)}, "cannot be of shape"),
        ({WORDS: (-2, 3)}, "cannot be of shape"),
        ({WORDS: (1 << 40, 3)}, "cannot be of shape"),
        ({"encoders.text.none.weight": (5, 3)}, "none"),
        ({WORDS: "wide"}, ""),
        (["words"], ""),
    ],
)
def test_a_checkpoint_that_says_impossible_shapes_is_refused(space, shapes, problem, tmp_path):
    folder = tmp_path / "stage-1"
    space.resized = True
    checkpoint.save_space(folder, space, stage=1)
    assert checkpoint.load_space(folder).resized
    state = read_json(folder / "state.json")
    state["space"]["shapes"] = shapes
    write_json(folder / "state.json", state, sealed=True)
    with pytest.raises(InputError, match=f"cannot be understood.*{problem}"):
        checkpoint.load_space(folder)
