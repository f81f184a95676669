"""MAS: weights that similarities depend on are held."""

import pytest
import torch

from continual_mm.data.dataset import Dataset
from continual_mm.plugins.mas import MAS
from continual_mm.plugins.plugin import Plugin
from continual_mm.space.naming import named_parameters
from continual_mm.space.space import JointSpace


def energy(space: JointSpace, dataset: Dataset) -> float:
    """Mean squared norm of the rows of similarities between all training items."""
    video, audio = (
        space.encode(name, dataset.columns[name].values[:80]).double()
        for name in ("video", "audio")
    )
    return float((video @ audio.T).square().sum(1).mean())


def importances(plugin: MAS) -> dict[str, torch.Tensor]:
    start = "importance/"
    return {k.removeprefix(start): v for k, v in plugin.state().items() if k.startswith(start)}


def test_importance_is_the_slope_of_the_similarities_energy(scenario, dataset, trained):
    """One batch of all items, so its order plays no role; slopes by central differences."""
    scenario = scenario.model_copy(update={"items": "shared"})
    plugin = MAS(batches=1, rows=80)
    space = trained(plugin, stages=1, scenario=scenario).space
    for name in ("encoders.video.unit.fc.weight", "encoders.audio.unit.fc.bias"):
        found, weight = importances(plugin)[name].flatten(), dict(named_parameters(space))[name]
        for place in found.topk(3).indices.tolist():
            ends = []
            for step in (0.01, -0.02):
                weight.data.view(-1)[place] += step
                ends.append(energy(space, dataset))
            weight.data.view(-1)[place] += 0.01
            slope = abs(ends[0] - ends[1]) / 0.02
            assert float(found[place]) == pytest.approx(slope, rel=0.02)


def test_the_papers_own_functional_has_no_slope_in_a_space_of_unit_vectors(dataset, trained):
    plugin = MAS(batches=2, rows=8)
    space = trained(plugin, stages=1).space
    features = torch.from_numpy(dataset.columns["video"].values[:80])
    embedded = space({"video": features}, {})["video"].embedding
    weights = list(space.tower("video").parameters())
    loss = embedded.square().sum(1).mean()
    slopes = torch.autograd.grad(loss, weights, allow_unused=True)
    largest = max(float(slope.abs().max()) for slope in slopes if slope is not None)
    assert largest < 1e-5 * max(float(each.max()) for each in importances(plugin).values())


def test_the_scale_of_similarities_and_reconstruction_heads_have_no_importance(trained):
    plugin = MAS(batches=2, rows=8)
    trained(plugin)
    assert importances(plugin)
    assert all(name.startswith("encoders.") for name in importances(plugin))


def test_importances_add_up_over_stages_around_the_last_weights(begun):
    plugin = MAS(weight=0.001, batches=2, rows=8)
    learner, streams = begun(plugin)
    name = "encoders.video.unit.fc.weight"
    learner.learn(streams, 0)
    first = importances(plugin)
    learner.learn(streams, 1)
    assert (importances(plugin)[name] > first[name]).all()
    audio = [name for name in first if ".audio." in name]
    assert audio
    assert all(torch.equal(first[each], importances(plugin)[each]) for each in audio)
    assert any(".text." in each for each in importances(plugin))
    weights = dict(named_parameters(learner.space))
    for each in importances(plugin):
        assert torch.equal(plugin.state()[f"centre/{each}"], weights[each]), each


def test_the_penalty_is_the_weighted_square_of_the_way_and_zero_at_first(trained):
    seen = []

    class Look(Plugin):
        def before_backward(self, strategy, *args, **kwargs):
            if strategy.stage == 1:
                weights, state = dict(named_parameters(strategy.space)), plugin.state()
                expected = sum(
                    float((each * (weights[name] - state[f"centre/{name}"]) ** 2).double().sum())
                    for name, each in importances(plugin).items()
                )
                seen.append((float(strategy.terms["mas"]), 5.0 * expected))

    plugin = MAS(weight=5.0, batches=2, rows=8)
    trained(plugin, Look())
    assert seen[0] == (0.0, 0.0)
    assert seen[-1][0] > 0
    for found, expected in seen:
        assert found == pytest.approx(expected, rel=1e-4)
