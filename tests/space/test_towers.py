"""Towers of one's own: by name, from Python, with weights from a file."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.modality import Kind, Modality
from continual_mm.definitions.scenario import (
    Scenario,
    SpaceSettings,
    Stage,
    Strategy,
    TowerSettings,
    Training,
)
from continual_mm.runs.run import open_run, run, train
from continual_mm.runs.start import towers_of
from continual_mm.space.registry import BUILT_IN, build, tower_problem
from continual_mm.space.space import JointSpace, registered
from continual_mm.space.towers import Adapted, encoder_of
from continual_mm.system.errors import InputError

VIDEO = Modality("video", Kind.VECTOR, (6,))
AUDIO = Modality("audio", Kind.SPECTROGRAM, (9, 5))
EVERY_KIND = [
    VIDEO,
    AUDIO,
    Modality("text", Kind.TOKENS, (4, 3)),
    Modality("clip", Kind.FRAMES, (4, 2, 3)),
]
SETTINGS = SpaceSettings(dim=6, clusters=3, width=4, feature_dropout=0.0)


class Small(nn.Module):
    """A user's module that was not written for this project."""

    def __init__(self, inputs=6, outputs=4):
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.layer(x)).tanh()


class MeanOverTime(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 6)

    def forward(self, x, lengths):
        valid = torch.arange(x.shape[1]) < lengths[:, None]
        return self.layer((x * valid[:, :, None]).sum(1) / lengths[:, None])


@pytest.fixture(scope="module")
def dataset(features):
    arrays = features()
    arrays["audio"] = np.repeat(arrays["audio"][:, None, :5], 9, axis=1)
    split = np.repeat([0, 1, 2], 30)
    return Dataset.from_arrays(arrays, split=split, kinds={"audio": "spectrogram"})


def scenario_of(**changes):
    stages = (Stage(add=("video", "audio")), Stage(add=("text",), pairs=("video-text",)))
    training = Training(steps=6, batch_size=8, learning_rate=1e-2)
    return Scenario(name="own", space=SETTINGS, training=training, stages=stages, **changes)


@pytest.mark.parametrize("kind", BUILT_IN)
@pytest.mark.parametrize("modality", EVERY_KIND, ids=lambda m: str(m.kind))
def test_a_registered_tower_reads_what_it_says_it_reads(kind, modality):
    if tower_problem(kind, modality, SETTINGS.dim):
        assert modality.kind not in BUILT_IN[kind].kinds
        return
    tower = encoder_of(build(kind)(modality, SETTINGS), modality, SETTINGS)
    lengths = torch.tensor([1, 4, 4]) if modality.kind.has_length else None
    pooled, raw = tower(torch.randn(3, *modality.shape), lengths)
    assert raw.shape == (3, 6)
    assert pooled.shape == (3, tower.pooled)


def test_identity_and_at_first_linear_give_features_back_where_sizes_agree():
    features = torch.randn(4, 6)
    expected = features / features.norm(dim=1, keepdim=True)
    for kind in ("identity", "linear"):
        space = JointSpace(SETTINGS, towers={"video": registered(kind)})
        space.add_modality(VIDEO)
        torch.testing.assert_close(space.encode("video", features), expected)
    seven = Modality("video", Kind.VECTOR, (7,))
    assert tower_problem("identity", VIDEO, 6) == ""
    assert tower_problem("identity", seven, 6).endswith("it has 7")


def test_a_module_from_python_is_copied_and_its_copy_is_trained(dataset):
    module = Small()
    before = module.layer.weight.clone()
    history = train(scenario_of(), dataset, towers={"video": module}, device="cpu")
    own = history.space.tower("video").own
    assert torch.equal(module.layer.weight, before)
    assert not torch.equal(own.layer.weight, before)


def test_a_tower_that_is_not_trained_stays_bit_for_bit_and_in_evaluation_mode(dataset):
    module = Small()
    scenario = scenario_of(towers={"video": TowerSettings(trained=False)})
    history = train(scenario, dataset, towers={"video": module}, device="cpu")
    own = history.space.tower("video").own
    assert torch.equal(own.layer.weight, module.layer.weight)
    history.space.train()
    assert not own.drop.training
    assert history.space.tower("audio").training
    features = dataset.columns["video"].values[:3]
    assert torch.equal(
        history.space.encode("video", features), history.space.encode("video", features)
    )


def test_a_module_that_takes_lengths_gets_them():
    tower = Adapted(MeanOverTime(), AUDIO, SETTINGS)
    values = torch.randn(2, 9, 5)
    padded = values.clone()
    padded[0, 3:] = 100.0
    lengths = torch.tensor([3, 9])
    assert torch.equal(tower(values, lengths)[0], tower(padded, lengths)[0])


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Small(inputs=7), r"Small, does not take items of shape \(6,\)"),
        (nn.Flatten(0), r"Flatten, gives \(12,\) for two items; it must give \(2, size\)"),
    ],
)
def test_a_module_that_does_not_fit_is_refused_by_name(module, message):
    with pytest.raises(ValueError, match=message):
        Adapted(module, VIDEO, SETTINGS)


def test_dropout_of_ones_own_follows_from_the_seed_and_leaves_the_global_rng_alone(dataset):
    def trained(outside):
        torch.manual_seed(outside)
        module = Small()
        nn.init.ones_(module.layer.weight)
        nn.init.zeros_(module.layer.bias)
        before = torch.get_rng_state()
        history = train(scenario_of(), dataset, towers={"video": module}, device="cpu")
        assert torch.equal(torch.get_rng_state(), before)
        return history.space.state_dict()

    one, two = trained(1), trained(2)
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_weights_come_from_a_file_of_the_module_or_of_a_whole_space(tmp_path, suffix):
    trained = JointSpace(SETTINGS, seed=7)
    trained.add_modality(VIDEO)
    alone = trained.tower("video").state_dict()
    for name, tensors in (("alone", alone), ("space", trained.state_dict())):
        path = tmp_path / f"{name}.{suffix}"
        (torch.save if suffix == "pt" else save_file)(tensors, path)
        space = first(tmp_path, path.name)
        for key, value in alone.items():
            assert torch.equal(space.tower("video").state_dict()[key], value), (name, key)


def first(folder, weights):
    """A space whose video tower begins with the weights in a file of the folder."""
    towers = {"video": TowerSettings(weights=weights)}
    scenario = scenario_of(towers=towers, folder=str(folder))
    space = JointSpace(SETTINGS, towers=towers_of(scenario, [VIDEO], {}))
    space.add_modality(VIDEO)
    return space


def test_weights_that_do_not_fit_are_refused_with_their_names(tmp_path):
    save_file({"unit.fc.weight": torch.zeros(2, 2)}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"w\.safetensors: does not fit: .*unit"):
        first(tmp_path, "w.safetensors")


def test_code_in_a_file_of_weights_is_not_run(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"unit.fc.weight": Hostile()}, tmp_path / "w.pt")
    with pytest.raises(InputError, match="cannot be read as weights"):
        first(tmp_path, "w.pt")


def test_a_run_with_towers_is_opened_again(dataset, tmp_path):
    scenario = scenario_of(towers={"text": TowerSettings(kind="linear")})
    module = Small()
    history = run(
        scenario, Strategy(name="naive"), dataset, tmp_path, device="cpu", towers={"video": module}
    )
    folder = tmp_path / "own" / "naive" / "seed-0"
    with pytest.raises(InputError, match=r"tower '.*Small'"):
        open_run(folder)
    space = open_run(folder, towers={"video": module})
    for name in ("video", "text"):
        features = dataset.columns[name].values[:4]
        assert torch.equal(space.encode(name, features), history.space.encode(name, features))


def test_a_run_is_not_taken_for_one_with_other_weights_in_a_module(dataset, tmp_path):
    def again(module):
        naive = Strategy(name="naive")
        return run(scenario_of(), naive, dataset, tmp_path, device="cpu", towers={"video": module})

    module = Small()
    first = again(module)
    assert again(deepcopy(module)).scores == first.scores
    with torch.no_grad():
        module.layer.bias[0] += 1
    with pytest.raises(InputError, match=r"towers\.video\.kind was '.*Small"):
        again(module)


def test_a_module_and_a_name_for_one_modality_are_refused(dataset):
    scenario = scenario_of(towers={"video": TowerSettings(kind="linear")})
    with pytest.raises(InputError, match="the scenario names a tower as well"):
        train(scenario, dataset, towers={"video": Small()}, device="cpu")
    with pytest.raises(InputError, match="such a modality; did you mean 'video'") as error:
        train(scenario_of(), dataset, towers={"vido": Small()}, device="cpu")
    assert str(error.value).endswith("there are audio, text, video")


def test_flat_tells_moments_apart_and_takes_padding_for_zeros():
    modality = Modality("video", Kind.FRAMES, (4, 3))
    tower = build("flat")(modality, SETTINGS)
    clip = torch.randn(1, 4, 3)
    whole = torch.tensor([4])
    assert not torch.allclose(tower(clip, whole)[1], tower(clip.flip(1), whole)[1])
    padded = clip.clone()
    padded[:, 2:] = 0
    torch.testing.assert_close(tower(clip, torch.tensor([2]))[1], tower(padded, whole)[1])
    torch.testing.assert_close(tower(clip[:, :2], torch.tensor([2]))[1], tower(padded, whole)[1])
    with pytest.raises(ValueError, match="5 time steps, but the tower 'flat' has 4"):
        tower(torch.randn(1, 5, 3), None)
