"""Null space: whatever the optimiser does, old outputs stay where old inputs were looked at."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from continual_mm.data.dataset import Dataset
from continual_mm.definitions.scenario import Scenario, SpaceSettings, Stage, Training
from continual_mm.plugins.nullspace import LayerInputs, Nullspace, leading_space, outside
from continual_mm.plugins.plugin import Plugin
from continual_mm.plugins.warmup import Warmup
from continual_mm.space.naming import modality_of, named_parameters

OLD = ("video", "audio")
ALL = {"keep": 1.0, "batches": 4, "rows": 20}


def arrays(rank):
    rng = np.random.default_rng(1)
    shared = rng.standard_normal((120, rank))
    sizes = (("video", 12), ("audio", 10), ("text", 8), ("depth", 6))
    return {
        name: (shared @ rng.standard_normal((rank, size))).astype(np.float32)
        for name, size in sizes
    }


@pytest.fixture(scope="module")
def dataset():
    return Dataset.from_arrays(arrays(3), split=np.repeat([0, 1, 2], [80, 20, 20]))


@pytest.fixture(scope="module")
def clips():
    """A spectrogram beside a vector and tokens."""
    rng = np.random.default_rng(2)
    signals = {
        "video": arrays(3)["video"],
        "audio": rng.standard_normal((120, 8, 3)).astype(np.float32),
        "text": rng.standard_normal((120, 4, 5)).astype(np.float32),
    }
    kinds = {"audio": "spectrogram", "text": "tokens"}
    return Dataset.from_arrays(signals, kinds=kinds, split=np.repeat([0, 1, 2], [80, 20, 20]))


def scenario_of(steps=12, **space):
    settings = {"dim": 16, "clusters": 4, "feature_dropout": 0.0} | space
    return Scenario(
        name="nullspace",
        items="shared",
        space=SpaceSettings.model_validate(settings),
        training=Training(steps=steps, batch_size=20, learning_rate=1e-2),
        stages=(Stage(add=OLD), Stage(add=("text",), pairs=("video-text", "audio-text"))),
    )


PUBLISHED = {"mode": "reference", "width": 4, "depth": 1, "reconstruction_width": 8}


@pytest.fixture
def scenario():
    return scenario_of()


class Decay(Plugin):
    """Gives the optimiser a weight decay."""

    def before_training_exp(self, strategy, *args, **kwargs):
        for group in strategy.optimizer.param_groups:
            group["weight_decay"] = 0.1


class Gradients(Nullspace):
    """The trap: projects the gradients, and leaves the update to Adam."""

    def before_update(self, strategy, *args, **kwargs):
        parameters = dict(named_parameters(strategy.space))
        for layer, basis in self._basis.items():
            weight, *biases = (parameters[name] for name in layer.split(","))
            if weight.grad is None:
                continue
            columns = [weight.grad, *(bias.grad[:, None] for bias in biases)]
            projected = outside(torch.cat(columns, dim=1)[None], basis)[0]
            weight.grad.copy_(projected[:, : weight.shape[1]])
            for bias in biases:
                bias.grad.copy_(projected[:, -1])

    def after_update(self, strategy, *args, **kwargs):
        pass


def embeddings(learner, dataset, names=OLD):
    """Raw embeddings of the first stage's items."""
    learner.space.eval()
    found = {}
    for name in names:
        column = dataset.columns[name]
        lengths = None if column.lengths is None else torch.from_numpy(column.lengths[:80])
        with torch.no_grad():
            _, found[name] = learner.space.tower(name)(
                torch.from_numpy(column.values[:80]), lengths
            )
    learner.space.train()
    return found


@pytest.fixture
def drift(begun):
    """(scenario, dataset, plugins) -> how far the old towers' outputs move in the second stage.

    Relative to their size.
    """

    def drift_of(scenario, dataset, *plugins):
        learner, streams = begun(*plugins, scenario=scenario, dataset=dataset)
        learner.learn(streams, 0)
        before = embeddings(learner, dataset)
        learner.learn(streams, 1)
        after = embeddings(learner, dataset)
        moved = [(after[name] - before[name]).norm() / before[name].norm() for name in OLD]
        return max(float(each) for each in moved)

    return drift_of


@pytest.mark.parametrize("others", [(), (Decay(),)], ids=["adam", "weight decay"])
def test_old_outputs_stay_where_projected_gradients_let_them_drift(others, dataset, drift):
    scenario = scenario_of(steps=50)
    assert drift(scenario, dataset, Gradients(**ALL), *others) > 1e-2
    assert drift(scenario, dataset, Nullspace(**ALL), *others) < 1e-6


@pytest.mark.parametrize("mode", ["robust", "reference"])
def test_towers_with_time_stay_too_in_both_modes(mode, clips, drift):
    scenario = scenario_of(steps=10, **{**PUBLISHED, "mode": mode})
    assert drift(scenario, clips) > 1e-2
    assert drift(scenario, clips, Nullspace(**ALL)) < 2e-6


def test_published_towers_keep_their_batch_statistics_bit_for_bit(clips, begun):
    learner, streams = begun(Nullspace(), scenario=scenario_of(steps=5, **PUBLISHED), dataset=clips)
    learner.learn(streams, 0)
    audio = learner.space.tower("audio")
    before = {name: value.clone() for name, value in audio.named_buffers()}
    assert any(value.any() for name, value in before.items() if name.endswith("running_mean"))
    learner.learn(streams, 1)
    assert all(torch.equal(value, before[name]) for name, value in audio.named_buffers())


def test_published_text_that_multiplies_by_itself_is_bound_and_its_bias_held(clips, begun, weights):
    text_first = (Stage(add=("video", "text")), Stage(add=("audio",)))
    scenario = scenario_of(steps=5, **PUBLISHED).model_copy(update={"stages": text_first})
    learner, streams = begun(Nullspace(**ALL), scenario=scenario, dataset=clips)
    learner.learn(streams, 0)
    before, held = embeddings(learner, clips, ["text"]), weights(learner)
    learner.learn(streams, 1)
    after = embeddings(learner, clips, ["text"])["text"]
    assert (after - before["text"]).norm() < 2e-6 * before["text"].norm()
    assert torch.equal(
        held["encoders.text.words.bias"], weights(learner)["encoders.text.words.bias"]
    )


def test_old_layers_learn_on_where_old_inputs_were_not(dataset, trained, weights):
    """Changes are there, and they leave out the direction in which old inputs are largest."""
    before = weights(trained(stages=1))
    after = weights(trained(Nullspace(keep=0.9, batches=4, rows=20)))
    change = after["encoders.video.unit.fc.weight"] - before["encoders.video.unit.fc.weight"]
    inputs = torch.from_numpy(dataset.columns["video"].values[:80])
    seen = torch.linalg.svd(inputs.T @ inputs).U[:, :1]
    assert change.norm() > 0.01
    assert (change @ seen).norm() < 0.1 * change.norm()


def test_what_no_layer_multiplies_is_held_in_old_towers_and_nowhere_else(trained, weights):
    before = weights(trained(stages=1))
    learner = trained(Nullspace(keep=0.5))
    after = weights(learner)
    held = {n for n, p in named_parameters(learner.space) if not p.requires_grad}
    assert held == {n for n in before if modality_of(n) and ".norm." in n}
    assert all(torch.equal(before[name], after[name]) for name in held)
    assert not torch.equal(before["log_scale"], after["log_scale"])


def test_the_more_is_kept_the_less_old_outputs_drift(scenario, dataset, drift):
    found = [drift(scenario, dataset, Nullspace(keep=keep)) for keep in (0.0, 0.9, 0.99)]
    assert found[0] > 2 * found[1] > 4 * found[2] > 0


def test_after_a_warm_up_old_outputs_stay_as_well(dataset, drift):
    scenario = scenario_of(steps=20)
    assert drift(scenario, dataset, Warmup(share=0.5)) > 1e-2
    for plugins in ((Nullspace(**ALL), Warmup()), (Warmup(), Nullspace(**ALL))):
        assert drift(scenario, dataset, *plugins) < 1e-6


def test_the_space_is_that_of_all_stages_until_now(dataset, begun):
    """Two stages that show the same items show every input twice as often, in the mean once."""
    plugin = Nullspace(**ALL)
    learner, streams = begun(plugin)
    learner.learn(streams, 0)
    layer = "covariance/encoders.video.unit.fc.weight,encoders.video.unit.fc.bias"
    first = plugin.state()[layer].clone()
    values = torch.from_numpy(dataset.columns["video"].values[:80]).double()
    vectors = torch.cat([values, torch.ones(80, 1)], dim=1).double()
    torch.testing.assert_close(first[0], vectors.T @ vectors / 80)
    learner.learn(streams, 1)
    torch.testing.assert_close(plugin.state()[layer], 2 * first)


def test_the_fewest_directions_hold_the_energy_in_each_group():
    energies = torch.tensor([[9.0, 0.7, 0.2, 0.1], [5.0, 5.0, 0.0, 0.0]], dtype=torch.float64)
    groups = torch.diag_embed(energies)
    for keep, expected in ((0.9, [1, 2]), (0.5, [1, 1]), (0.95, [2, 2]), (1.0, [4, 2])):
        basis = leading_space(groups, keep)
        assert basis.square().sum((1, 2)).round().tolist() == expected
        assert basis.shape[2] == max(expected)
    first = leading_space(groups, 0.9)[0].abs()[:, 0]
    torch.testing.assert_close(first, torch.eye(4)[0])


def gathered(module, *batches):
    inputs = LayerInputs(dict(module.named_parameters()))
    with inputs:
        for batch in batches:
            module(batch)
    return inputs.covariances()


def rand(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_without_a_bias_there_is_no_constant_and_every_time_step_counts():
    values = rand(4, 6, 3)
    found = gathered(nn.Linear(3, 2, bias=False), values)
    steps = values.reshape(24, 3).double()
    torch.testing.assert_close(found["weight"], (steps.T @ steps / 24)[None])


@pytest.mark.parametrize(
    "options", [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": 2}]
)
def test_a_convolution_is_given_the_patches_that_unfold_gives(options):
    values = rand(4, 3, 9, 8)
    found = gathered(nn.Conv2d(3, 5, 3, bias=False, **options), values)
    patches = functional.unfold(values, 3, **options).double()
    expected = torch.einsum("nip,njp->ij", patches, patches) / (4 * patches.shape[2])
    torch.testing.assert_close(found["weight"], expected[None])


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(4, 6, 3, padding=1),
        nn.Conv1d(4, 6, 5, padding="same"),
        nn.Conv1d(4, 6, 3, padding="valid", stride=2),
        nn.Conv1d(4, 6, 9, stride=2, padding=4, groups=2),
        nn.Conv1d(4, 6, 3, padding=2, padding_mode="circular"),
        nn.Conv2d(4, 6, (1, 3), padding=(0, 1), groups=2, bias=False),
        nn.Conv3d(4, 4, (2, 1, 2), dilation=(1, 1, 2), groups=4),
        nn.Linear(4, 6),
    ],
    ids=str,
)
def test_the_covariance_foretells_the_energy_of_the_outputs(layer):
    """``mean |W x + b|^2 = tr((W, b) C (W, b)^T)``, whatever the layer does with its input."""
    shapes = {nn.Conv1d: (3, 4, 11), nn.Conv2d: (3, 4, 5, 6), nn.Conv3d: (2, 4, 3, 4, 5)}
    values = rand(*shapes.get(type(layer), (7, 4)))
    (covariance,) = gathered(layer, values).values()
    parameters = [layer.weight.flatten(1)] + ([] if layer.bias is None else [layer.bias[:, None]])
    rows = torch.cat(parameters, dim=1).double().unflatten(0, (covariance.shape[0], -1))
    outputs = layer(values).detach().double()
    places = outputs.numel() / layer.weight.shape[0]
    found = (rows @ covariance @ rows.mT).diagonal(dim1=1, dim2=2).sum()
    torch.testing.assert_close(found, outputs.square().sum() / places, rtol=1e-5, atol=0)


def test_a_weight_that_is_multiplied_without_its_module_is_found_without_the_bias():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Linear(3, 2)

        def forward(self, values):
            return functional.linear(values, self.words.weight).amax(1) + self.words.bias

    assert list(gathered(Own(), rand(4, 6, 3))) == ["words.weight"]


def test_what_is_not_looked_for_or_not_multiplied_alone_is_left_out():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.three = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
            self.two.bias = self.one.bias
            self.norm = nn.LayerNorm(3)
            self.recurrent = nn.GRU(3, 3)

        def forward(self, values):
            return self.norm(self.recurrent(self.three(self.two(self.one(values))))[0])

    assert list(gathered(Tied(), rand(4, 3))) == ["three.weight,three.bias"]
    inputs = LayerInputs({})
    with inputs:
        nn.Linear(3, 2)(rand(4, 3))
    assert inputs.covariances() == {}


def test_looking_on_changes_no_output_and_no_gradient():
    layer, values = nn.Conv1d(4, 6, 3), rand(3, 4, 11)
    layer(values).square().sum().backward()
    expected = layer.weight.grad.clone()
    layer.zero_grad()
    with LayerInputs(dict(layer.named_parameters())):
        layer(values).square().sum().backward()
    assert torch.equal(layer.weight.grad, expected)
